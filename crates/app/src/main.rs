//! The binary `rehome`: configuration, wiring, `serve`, the operator's commands, and cmdlets as subcommands.
//!
//! Never: hold logic that a test would want.

mod ask;
mod catalogue;
mod certificate;
mod cmdlet;
mod config;
mod failure;
mod files;
#[cfg(test)]
mod golden;
mod imap_endpoints;
mod logging;
mod operator;
mod output;
mod platforms;
mod print;
mod profile;
mod receipt;
mod serve;
mod session;
mod text;
mod wait;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cmdlet::Switches;
use config::Config;
use failure::{Exit, Failure};
use operator::DomainChange;
use output::Form;
use session::{Answer, Login};
use std::{path::PathBuf, process::ExitCode};

/// Where the operator's commands look for the configuration.
const USUAL_CONFIG: &str = "/etc/rehome/rehome.toml";

#[derive(Parser)]
#[command(name = "rehome", version, disable_help_subcommand = true)]
struct Arguments {
    /// Profile whose session is used.
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file; else REHOME_CONFIG, else /etc/rehome/rehome.toml.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Task {
    /// Serves until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Makes and lists tenants, on the server's machine.
    #[command(subcommand)]
    Tenant(TenantTask),
    /// Mends administrators' access, on the server's machine.
    #[command(subcommand)]
    Admin(AdminTask),
    /// Makes the key that seals stored secrets.
    #[command(subcommand)]
    Key(KeyTask),
    /// Makes a certificate for a trial.
    #[command(subcommand)]
    Certificate(CertificateTask),
    /// Explains and checks the configuration.
    #[command(subcommand)]
    Config(ConfigTask),
    /// Signs in as an administrator and keeps the session in a profile.
    Login {
        /// The server: HOST or HOST:PORT (443 if not given).
        #[arg(long, value_name = "HOST[:PORT]")]
        server: String,
        /// The tenant: one of its domains, or its GUID.
        #[arg(long)]
        tenant: String,
        /// PEM file of a private authority that the server's certificate comes from.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// JSON {"UserName", "Password", "NewPassword"} instead of questions; - for standard input. NewPassword goes with a
        /// one-time code.
        #[arg(long, value_name = "FILE")]
        credentials_file: Option<String>,
    },
    /// Forgets a session.
    Logout,
    /// Says who is signed in.
    Whoami,
    /// Shows what a partner's application asks, and answers.
    Consent {
        /// The link that the partner sent.
        link: String,
        /// Says no.
        #[arg(long, conflicts_with = "yes")]
        cancel: bool,
        /// Says yes without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Verifies receipts of moves, anywhere.
    #[command(subcommand)]
    Receipt(receipt::ReceiptTask),
    /// Prints help on a command.
    Help {
        /// The command's name.
        command: Vec<String>,
    },
    #[command(external_subcommand)]
    Cmdlet(Vec<String>),
}

#[derive(Subcommand)]
enum TenantTask {
    /// Makes a tenant and prints its first administrator's one-time sign-in code.
    New {
        /// Its first domain.
        domain: String,
        /// The administrator's sign-in name: name@domain.
        #[arg(long, value_name = "NAME")]
        admin: String,
        /// The organisation's name.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Lists the tenants.
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Changes a tenant's accepted domains; the operator vouches for their ownership.
    #[command(subcommand)]
    Domain(DomainTask),
}

#[derive(Subcommand)]
enum DomainTask {
    /// Adds an accepted domain.
    Add(DomainArguments),
    /// Removes an accepted domain that no recipient uses.
    Remove(DomainArguments),
}

#[derive(clap::Args)]
struct DomainArguments {
    /// The tenant: one of its domains, or its GUID.
    tenant: String,
    /// The domain.
    domain: String,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Subcommand)]
enum AdminTask {
    /// Takes an administrator's password and sessions away and prints a new one-time sign-in code.
    Reset {
        /// The tenant: one of its domains, or its GUID.
        tenant: String,
        /// The administrator's sign-in name.
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Subcommand)]
enum KeyTask {
    /// Makes a key file with mode 0600; an existing file is never overwritten.
    New {
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum CertificateTask {
    /// Makes a trial authority and a certificate from it, for a year: ca.pem, leaf.pem, leaf.key.
    New {
        /// A host name or address of the server; may be repeated.
        #[arg(long = "name", value_name = "HOST", required = true)]
        names: Vec<String>,
        /// The folder; made if it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum ConfigTask {
    /// Prints every key with its meaning and default, and a complete example.
    Describe,
    /// Checks a configuration file.
    Check {
        /// The file.
        file: PathBuf,
    },
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        let from_environment = || {
            std::env::var_os("REHOME_CONFIG")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let file = self
            .file
            .clone()
            .or_else(from_environment)
            .unwrap_or_else(|| PathBuf::from(USUAL_CONFIG));
        load(&file)
    }
}

fn load(file: &std::path::Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| Failure::usage(error.to_string()).advice("rehome config describe"))
}

fn main() -> ExitCode {
    let matches = Arguments::command()
        .override_help(catalogue::overview())
        .try_get_matches();
    let arguments = match matches.and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches)) {
        Ok(arguments) => arguments,
        Err(error) => return clap_says(&error),
    };
    // It fails only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let json =
        arguments.json || matches!(&arguments.task, Task::Cmdlet(words) if words.iter().any(|word| word == "--json"));
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::say(&if json {
                format!("{}\n", failure.to_json())
            } else {
                failure.to_text()
            });
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Help and version on standard output, mistakes on standard error.
fn clap_says(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        print::say(&error.render().to_string());
        return ExitCode::from(Exit::Usage as u8);
    }
    print::out(&error.render().to_string());
    ExitCode::SUCCESS
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { profile, json, task } = arguments;
    let form = if json { Form::Json } else { Form::Usual };
    match task {
        Task::Serve { config } => {
            let config = config.load()?;
            logging::start(config.log.format, config.log.level);
            block_on(Threads::Many, serve::serve(&config))
        }
        Task::Tenant(task) => tenant(task, form),
        Task::Admin(AdminTask::Reset { tenant, name, config }) => {
            let config = config.load()?;
            block_on(Threads::One, operator::admin_reset(&config, &tenant, &name, form))
        }
        Task::Key(KeyTask::New { out }) => operator::key_new(&out),
        Task::Certificate(CertificateTask::New { names, out }) => certificate(&names, &out),
        Task::Config(ConfigTask::Describe) => {
            print::out(&config::manual());
            Ok(())
        }
        Task::Config(ConfigTask::Check { file }) => {
            platforms::configured(&load(&file)?)?;
            print::say(&format!("{} is a configuration.\n", file.display()));
            Ok(())
        }
        Task::Login {
            server,
            tenant,
            ca,
            credentials_file,
        } => block_on(
            Threads::One,
            session::login(Login {
                server,
                tenant,
                profile,
                authority: ca,
                credentials_file,
            }),
        ),
        Task::Logout => session::logout(profile.as_deref()),
        Task::Whoami => block_on(Threads::One, session::whoami(profile.as_deref(), form)),
        Task::Consent { link, cancel, yes } => {
            let answer = match (yes, cancel) {
                (true, _) => Answer::Accept,
                (false, true) => Answer::Cancel,
                (false, false) => Answer::Ask,
            };
            block_on(Threads::One, session::consent(profile.as_deref(), &link, answer, form))
        }
        Task::Receipt(task) => block_on(Threads::One, receipt::run(task, form)),
        Task::Help { command } => help(&command),
        Task::Cmdlet(words) => block_on(Threads::One, cmdlet::run(&words, Switches::new(profile, json))),
    }
}

fn tenant(task: TenantTask, form: Form) -> Result<(), Failure> {
    match task {
        TenantTask::New {
            domain,
            admin,
            display_name,
            config,
        } => {
            let config = config.load()?;
            block_on(
                Threads::One,
                operator::tenant_new(&config, &domain, &admin, display_name.as_deref(), form),
            )
        }
        TenantTask::List { config } => block_on(Threads::One, operator::tenant_list(&config.load()?, form)),
        TenantTask::Domain(task) => {
            let (change, arguments) = match task {
                DomainTask::Add(arguments) => (DomainChange::Add, arguments),
                DomainTask::Remove(arguments) => (DomainChange::Remove, arguments),
            };
            let config = arguments.config.load()?;
            block_on(
                Threads::One,
                operator::tenant_domain(&config, change, &arguments.tenant, &arguments.domain),
            )
        }
    }
}

fn certificate(names: &[String], folder: &std::path::Path) -> Result<(), Failure> {
    let made = certificate::make(names, folder)?;
    print::say(&format!(
        "For a trial only, valid until {}:\n  {}   certificate of the server ([tls] certificate)\n  {}   its key ([tls] key)\n  \
         {}     the trial authority, for partners ([tls] extra_roots) and administrators (login --ca)\n",
        made.until,
        made.certificate.display(),
        made.key.display(),
        made.authority.display()
    ));
    Ok(())
}

/// Help on a cmdlet or on one of our own commands.
fn help(words: &[String]) -> Result<(), Failure> {
    let Some(first) = words.first() else {
        print::out(&catalogue::overview());
        return Ok(());
    };
    if first.contains('-') {
        print::out(&catalogue::help(catalogue::find(first)?));
        return Ok(());
    }
    let mut command = &mut Arguments::command();
    command.build();
    for word in words {
        command = command.find_subcommand_mut(word).ok_or_else(|| {
            Failure::usage(format!("there is no command '{word}'")).advice("rehome --help lists the commands.")
        })?;
    }
    print::out(&command.render_long_help().to_string());
    Ok(())
}

/// How many threads a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    One,
    Many,
}

fn block_on(threads: Threads, task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::while_doing("the runtime cannot start", &error))?;
    let result = runtime.block_on(task);
    // Blocking work that does not end must not hold up the process's end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
