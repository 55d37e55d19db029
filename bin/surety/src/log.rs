//! The log: what the program says of its work on stderr, and the spans it sends to those who trace.
//!
//! In:     the arguments, OpenTelemetry's variables of the environment.
//! Out:    lines for people, or JSON for programs; spans by OTLP over HTTP, if the environment names whom to send them to.
//! Touches: stderr; the collector.
//! Holds:  neither has text of a prompt or an answer. A collector that cannot be reached delays nothing.
//! Absent: results (`output`); what is worth a line, which each room decides.

use std::{
    env,
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    cli::{Cli, Command, LogFormat},
    commands::{gateway, relay, validator, worker},
    output::{hinted, note},
};

/// Whom to send spans to, in the variables of OpenTelemetry's specification; the exporter reads the rest of them.
const COLLECTORS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// For a collector to take a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The spans that are worth sending; other rooms' are for debugging them.
const TRACED: &str = "surety_gateway";

/// Sends what is left when it is dropped.
pub struct Log(Option<SdkTracerProvider>);

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(spans) = self.0.take()
            && let Err(error) = spans.shutdown()
        {
            note(format_args!("the last spans were not sent: {error}"));
        }
    }
}

/// Starts the log, once.
pub fn start(cli: &Cli) -> anyhow::Result<Log> {
    let spans = match COLLECTORS.into_iter().find(|name| env::var_os(name).is_some_and(|url| !url.is_empty()))
    {
        Some(name) if is_server(cli) => {
            Some(spans().with_context(|| format!("cannot send spans to what {name} names"))?)
        }
        _ => None,
    };
    let sent = spans.as_ref().map(|spans| {
        let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer("surety"));
        layer.with_filter(Targets::new().with_target(TRACED, LevelFilter::INFO))
    });
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match cli.global.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(sent).with(lines.with_filter(filter(cli))).init();
    Ok(Log(spans))
}

fn spans() -> anyhow::Result<SdkTracerProvider> {
    let client = surety_client::https::blocking_client_builder().timeout(PATIENCE).build()?;
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build().map_err(|error| {
        hinted(
            format!("spans cannot be sent: {error}"),
            "name a collector as in http://localhost:4318, or unset the variable",
        )
    })?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("surety");
    }
    // A sampler, and the sizes of batches, come from the environment too.
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// Whether the command serves others until it is stopped.
fn is_server(cli: &Cli) -> bool {
    matches!(cli.command, Command::Gateway(gateway::Command::Run(_)))
}

/// What is worth a line.
fn filter(cli: &Cli) -> EnvFilter {
    let by_hand = match &cli.command {
        Command::Worker(worker::Command::Run(args)) => !args.serve.child.stop_with_parent,
        Command::Worker(worker::Command::Join(args)) => !args.serve.child.stop_with_parent,
        Command::Relay(relay::Command::Run(args)) => !args.child.stop_with_parent,
        Command::Gateway(gateway::Command::Run(args)) => !args.child.stop_with_parent,
        Command::Validator(validator::Command::Run(args)) => !args.child.stop_with_parent,
        _ => false,
    };
    let usual = if by_hand {
        "warn,commonware_storage=error,iroh=error,iroh::socket::transports::relay=off,iroh_relay=error,surety=info,surety_worker=info,surety_gateway=info,surety_validator=info"
    } else {
        // An empty database says that it is empty; a relay that is away, or was never wanted, is told by whoever needs it.
        "warn,commonware_storage=error,iroh=error,iroh::socket::transports::relay=off,iroh_relay=error"
    };
    let filter = cli.global.log.as_deref().unwrap_or(usual);
    EnvFilter::try_new(filter).unwrap_or_else(|error| {
        note(format_args!("the log filter is not understood, so `{usual}` is used: {error}"));
        EnvFilter::new(usual)
    })
}
