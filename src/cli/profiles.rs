//! Known paths, and the flags that suit them: data alone. What is done with it is in `profile.rs`.

/// A path that is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What is on the path.
    pub path: &'static str,
    /// What is known of it.
    pub facts: &'static [Fact],
}

/// What is known of a path, and what follows from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    /// A flag and its value, as they are written on the command line; empty if what holds without a flag suits it.
    pub flags: &'static [&'static str],
    /// Why.
    pub why: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// All of them, by name.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "apisix",
        path: "Apache APISIX, with an upstream of scheme ws or wss",
        facts: &[Fact {
            flags: &["--frame-limit", "65535B"],
            why: "a frame of more than 65535 bytes closes the connection, unless the plugin websocket-proxy raises that",
            source: "https://apisix.apache.org/docs/apisix/plugins/websocket-proxy/",
        }],
    },
    Profile {
        name: "cloud-run",
        path: "Google Cloud Run",
        facts: &[Fact {
            flags: &[],
            why: "a connection ends with the request timeout, 60 minutes at most: a cut, behind which a transfer goes on",
            source: "https://cloud.google.com/run/docs/triggering/websockets",
        }],
    },
    Profile {
        name: "cloudflare",
        path: "Cloudflare's proxy",
        facts: &[Fact {
            flags: &[],
            why: "what is idle for 100 s is closed (reported): both sides give signs of life after 20 s",
            source: "https://github.com/buildbot/buildbot/issues/4078",
        }],
    },
    Profile {
        name: "heroku",
        path: "Heroku's router",
        facts: &[Fact {
            flags: &[],
            why: "what is idle for 55 s is closed: both sides give signs of life after 20 s",
            source: "https://help.heroku.com/BZGH6WMY/why-do-my-websocket-requests-have-high-service-times-in-the-router-logs",
        }],
    },
    Profile {
        name: "jupyter",
        path: "jupyter-server-proxy, with or without JupyterHub",
        facts: &[
            Fact {
                flags: &["--window", "4MiB"],
                why: "messages are passed on without waiting for room: what is in flight lies in the server's memory",
                source: "https://github.com/jupyterhub/jupyter-server-proxy/blob/main/jupyter_server_proxy/handlers.py",
            },
            Fact {
                flags: &[],
                why: "a message of more than 10 MB closes the connection: no frame is as large",
                source: "https://github.com/jupyterhub/jupyter-server-proxy/issues/493",
            },
        ],
    },
    Profile {
        name: "kong",
        path: "Kong Gateway, with a service of protocol ws or wss",
        facts: &[Fact {
            flags: &["--frame-limit", "1MiB"],
            why: "a client's message of more than 1 MiB is answered with 1009, unless websocket-size-limit raises that",
            source: "https://developer.konghq.com/plugins/websocket-size-limit",
        }],
    },
    Profile {
        name: "nginx",
        path: "nginx as a reverse proxy",
        facts: &[Fact {
            flags: &[],
            why: "what the proxied server is silent on for 60 s is closed: both sides give signs of life after 20 s",
            source: "https://nginx.org/en/docs/http/websocket.html",
        }],
    },
    Profile {
        name: "signalr",
        path: "a relay in an ASP.NET Core SignalR hub, which wraps each frame",
        facts: &[Fact {
            flags: &["--frame-limit", "31KiB"],
            why: "a client's message of more than 32 KB closes the connection; 1 KiB is left for what is wrapped around",
            source: "https://learn.microsoft.com/en-us/dotnet/api/microsoft.aspnetcore.signalr.huboptions.maximumreceivemessagesize",
        }],
    },
    Profile {
        name: "spring-cloud-gateway",
        path: "Spring Cloud Gateway",
        facts: &[Fact {
            flags: &["--frame-limit", "64KiB"],
            why: "a frame of more than 65536 bytes closes the connection, unless max-frame-payload-length raises that",
            source: "https://github.com/spring-cloud/spring-cloud-gateway/issues/1739",
        }],
    },
    Profile {
        name: "tomcat",
        path: "a relay in Tomcat that takes whole messages",
        facts: &[Fact {
            flags: &["--frame-limit", "8KiB"],
            why: "the buffer for a text message has 8192 characters; a larger message closes the connection",
            source: "https://tomcat.apache.org/tomcat-11.0-doc/web-socket-howto.html",
        }],
    },
];
