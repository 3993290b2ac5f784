# A Jupyter server with jupyter-server-proxy, as it stands on a machine that is reached through it alone.
c.ServerApp.ip = "127.0.0.1"
c.ServerApp.port = @PORT@
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
c.ServerApp.root_dir = "@DIR@"
c.IdentityProvider.token = "token-of-the-tests"
# A receiver that runs already, under a name of its own: /ferry/. What listens on a port is at /proxy/PORT/ as well.
c.ServerProxy.servers = {"ferry": {"port": @RECEIVER_PORT@, "command": [], "launcher_entry": {"enabled": False}}}
