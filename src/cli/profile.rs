//! `--profile`: what there is, for people. Which flag wins is in `settings`.

use super::event::{JsonEvent, ProfileFact};
use super::output::Output;
use super::profiles::{Fact, PROFILES, Profile};

/// The profile of this name.
pub fn named(name: &str) -> Result<&'static Profile, String> {
    PROFILES.iter().find(|profile| profile.name == name).ok_or_else(|| {
        let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        format!("expected one of {}; `wsferry probe --profiles` says what they are", names.join(", "))
    })
}

/// Tells what there is.
pub fn list(output: &Output) {
    for (number, profile) in PROFILES.iter().enumerate() {
        output.event(event(profile));
        if number > 0 {
            output.line("");
        }
        output.line(&format!("{}: {}", profile.name, profile.path));
        for Fact { flags, why, source } in profile.facts {
            let flags = if flags.is_empty() { "no flag".to_owned() } else { flags.join(" ") };
            output.line(&format!("  {flags}: {why}"));
            output.line(&format!("    {source}"));
        }
    }
}

fn event(profile: &Profile) -> JsonEvent {
    let fact = |Fact { flags, why, source }: &Fact| ProfileFact {
        flags: (!flags.is_empty()).then(|| flags.join(" ")),
        why: (*why).to_owned(),
        source: (*source).to_owned(),
    };
    JsonEvent::Profile {
        name: profile.name.to_owned(),
        path: profile.path.to_owned(),
        facts: profile.facts.iter().map(fact).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;
    use crate::cli::args::{Args, Command as Parsed};
    use crate::cli::settings::{self, Refusal, Variables};

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        let line = ["wsferry"].into_iter().chain(line.split_whitespace()).map(Into::into).collect();
        let variables = Variables::from_iter([("WSFERRY_CONFIG".to_owned(), "".into())]);
        settings::parse(line, &variables).map_err(|refusal| match refusal {
            Refusal::CommandLine(error) => error,
            Refusal::Settings { why, .. } => panic!("{why}"),
        })
    }

    /// Each profile, and where it is a flag of `send`'s: by itself it has to be one, with a value that parses.
    #[test]
    fn every_flag_of_every_profile_is_one_that_sending_takes() {
        for profile in PROFILES {
            let flags: Vec<_> = profile.facts.iter().flat_map(|fact| fact.flags).copied().collect();
            let line = format!("send f ws://h {}", flags.join(" "));
            let by_hand = parsed(&line).unwrap_or_else(|error| panic!("{}: {error}", profile.name));
            let by_name = parsed(&format!("send f ws://h --profile {}", profile.name)).unwrap();
            let (Parsed::Send(by_hand), Parsed::Send(by_name)) = (by_hand.command, by_name.command) else {
                panic!("they are two senders");
            };
            assert_eq!(by_name.frame_limit, by_hand.frame_limit, "{}", profile.name);
            assert_eq!(by_name.window, by_hand.window, "{}", profile.name);
            let count = flags.iter().filter(|flag| flag.starts_with("--")).count();
            assert_eq!(count, profile.facts.iter().filter(|fact| !fact.flags.is_empty()).count());
        }
    }

    #[test]
    fn every_profile_says_why_and_by_whom_and_has_a_name_of_its_own() {
        assert!(PROFILES.is_sorted_by(|a, b| a.name < b.name), "they are listed by name");
        for Profile { name, path, facts } in PROFILES {
            assert!(!path.is_empty() && !facts.is_empty(), "{name}");
            for Fact { flags, why, source } in *facts {
                assert!(!why.is_empty() && source.starts_with("https://"), "{name}: {source}");
                assert!(flags.first().is_none_or(|flag| flag.starts_with("--")), "{name}: {flags:?}");
            }
        }
    }

    #[test]
    fn a_flag_that_is_given_by_hand_wins_wherever_it_stands() {
        for line in [
            "send f ws://h --profile tomcat --frame-limit 4KiB",
            "send --frame-limit 4KiB f ws://h --profile=tomcat",
            "send --profile tomcat f --frame-limit=4KiB ws://h",
        ] {
            let Parsed::Send(args) = parsed(line).unwrap().command else { panic!("{line}") };
            assert_eq!(args.frame_limit.map(|limit| limit.as_u64()), Some(4096), "{line}");
        }
        // What the command does not have is left out, what it has is taken.
        let Parsed::Bench(args) = parsed("bench ws://h --profile tomcat").unwrap().command else { panic!() };
        assert_eq!(args.frame_limit.map(|limit| limit.as_u64()), Some(8192));
        assert!(parsed("probe ws://h --profile tomcat").is_ok());
        assert!(parsed("bench ws://h --profile jupyter").is_ok());
    }

    #[test]
    fn what_goes_with_no_flag_of_the_profile_is_said_with_both_names() {
        let error = parsed("send --plain f ws://h --profile tomcat").unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ArgumentConflict, 2));
        let said = error.to_string();
        assert!(said.contains("--profile tomcat sets --frame-limit 8KiB"), "{said}");
        assert!(said.contains("with --plain"), "{said}");
        assert!(parsed("send --plain f ws://h --profile heroku").is_ok(), "it sets nothing");
        let said = parsed("send f ws://h --profile tomcats").unwrap_err().to_string();
        assert!(said.contains("apisix, ") && said.contains("tomcat;"), "{said}");
        assert!(parsed("receive ws://h d --profile tomcat").is_ok());
        assert!(parsed("demo --profile tomcat").is_err(), "it does not dial");
    }
}
