//! Wrong usage and hostile input, with the real binary: a sentence that says what, where and what to do, the right exit
//! code, nothing on stdout, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use skipstone_data::Tokenizer;
use skipstone_model::{ExportOptions, LlamaConfig, WholeModel, export};
use tempfile::TempDir;

fn skipstone(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).current_dir(dir).output().unwrap()
}

/// Runs a command line that must be refused with `code`, a message that holds each of `words`, and no output.
fn refused(dir: &TempDir, code: i32, arguments: &[&str], words: &[&str]) {
    let output = skipstone(dir.path(), arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    for word in words {
        assert!(error.contains(word), "{arguments:?}: `{word}` is not in: {error}");
    }
    assert!(!error.contains("panicked"), "{arguments:?}: {error}");
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with a small text and a small model of bytes.
fn with_model() -> TempDir {
    let dir = folder();
    fs::write(dir.path().join("text.txt"), "the quick brown fox jumps over the lazy dog. ".repeat(40))
        .unwrap();
    let tokenizer = Tokenizer::bytes().unwrap();
    let model = WholeModel::initial(LlamaConfig::new(257, 16, 2, 4, 32), 4, 0, 1).unwrap();
    let options = ExportOptions {
        eos: Some(tokenizer.eos_id()),
        tokenizer_json: Some(tokenizer.to_json().unwrap()),
        ..ExportOptions::default()
    };
    export(&model, &dir.path().join("model"), &options).unwrap();
    dir
}

#[test]
fn usage() {
    let dir = folder();
    refused(&dir, 2, &[], &["Usage"]);
    refused(&dir, 2, &["fly"], &["fly"]);
    refused(&dir, 2, &["train", "--stagse", "3"], &["--stages"]);
    refused(&dir, 2, &["train", "--steps", "many"], &["--steps", "many"]);
    refused(&dir, 2, &["train", "--save-every", "soon"], &["90s, 10m or 1h"]);
    refused(&dir, 2, &["train", "--while-lost", "cry"], &["skip or wait"]);
    refused(&dir, 2, &["simulate", "--faults", "all", "--seeds", "9..1"], &["1..1000"]);
    refused(&dir, 2, &["simulate", "--faults", "kil", "--seeds", "1..9"], &["kil", "partition", "or all"]);
    refused(&dir, 2, &["simulate", "--faults", "all", "--seeds", "1..2", "--nodes", "1"], &["--nodes"]);
    refused(&dir, 2, &["simulate", "--seeds", "1..9"], &["--faults"]);
    refused(&dir, 2, &["simulate"], &["RUN.toml", "INSTANCE.json", "--faults all --seeds"]);
    refused(&dir, 2, &["simulate", "instance.json"], &["instance.json"]);
    refused(&dir, 2, &["simulate", "none.toml"], &["none.toml"]);
    refused(&dir, 2, &["train", "--wan", "gcp13"], &["gcp13", "pass gcp12"]);
    refused(&dir, 2, &["train", "--pace", "NaN"], &["--pace", "seconds"]);
    refused(&dir, 2, &["train", "--pace"], &["--pace 0.5"]);
    refused(&dir, 2, &["demo", "--seconds", "1"], &["--seconds"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn experiments() {
    let dir = folder();
    let good =
        "name = 'x'\nstrategies = ['copy']\nloss_rates = [0.1]\n[run]\npace = 0.5\ndata = 'text.txt'\n";
    let write = |text: &str| fs::write(dir.path().join("e.toml"), text).unwrap();
    refused(&dir, 2, &["lab", "none.toml"], &["none.toml"]);
    for (from, to, words) in [
        ("'copy'", "'cpoy'", ["copy", "strategies"]),
        ("'copy'", "'copy:moment=mix'", ["moments", "did you mean"]),
        ("0.1", "1e9", ["loss_rates", "0.5"]),
        ("pace", "pase", ["pase", "line"]),
        ("pace = 0.5", "", ["pace = 0.5", "run.pace"]),
        ("'text.txt'", "'none.txt'", ["none.txt", "run"]),
    ] {
        write(&good.replace(from, to));
        refused(&dir, 2, &["lab", "e.toml"], &words[..1]);
    }
    fs::create_dir(dir.path().join("skipstone-lab")).unwrap();
    fs::write(dir.path().join("skipstone-lab/results.jsonl"), "not json\n").unwrap();
    write(&good.replace("data = 'text.txt'", ""));
    refused(&dir, 2, &["lab", "e.toml"], &["results.jsonl", "line 1", "--out"]);
}

#[test]
fn tables_of_regions() {
    let dir = folder();
    for (regions, more, words) in [
        (r#"{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 0}"#, "", "bandwidth_Bps"),
        (r#"{"a": "x", "b": "y", "latency_s": NaN, "bandwidth_Bps": 1}"#, "", "line 1"),
        (r#"{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 9, "loss": 1}"#, "", "loss` is 1"),
        (
            r#"{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 9, "jitter_s": -1}"#,
            "",
            "jitter_s` is -1",
        ),
        (
            r#"{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 9}"#,
            r#", "node_regions": ["z"]"#,
            "z, which no link",
        ),
        (
            r#"{"a": "x", "b": "y", "latency_s": 0, "bandwidth_Bps": 9}, {"a": "z", "b": "y", "latency_s": 0, "bandwidth_Bps": 9}"#,
            "",
            "no link between x and z",
        ),
    ] {
        let intra = r#"{"latency_s": 0, "bandwidth_Bps": 1e9}"#;
        let table = format!(r#"{{"regions": {{"intra": {intra}, "links": [{regions}]}}{more}}}"#);
        fs::write(dir.path().join("wan.json"), table).unwrap();
        refused(&dir, 2, &["train", "--wan", "wan.json"], &["--wan wan.json", words]);
        assert!(!dir.path().join("skipstone-run").exists());
    }
}

#[test]
fn help_has_examples_and_hides_what_is_internal() {
    let dir = folder();
    let help = |arguments: &[&str]| {
        let output = skipstone(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    assert!(!all.contains("internal"));
    for command in [
        "demo", "train", "eval", "generate", "audit", "replay", "show", "bench", "plan", "simulate", "chaos",
        "lab", "config", "join", "tickets", "watch", "manage", "doctor",
    ] {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not listed");
        let text = help(&[command, "--help"]);
        assert!(text.contains(&format!("  skipstone {command}")), "{command} has no example");
    }
    // Of the feature `relay`, which is not built by default.
    assert_eq!(all.contains("\n  relay "), cfg!(feature = "relay"));
}

#[test]
fn options_that_cannot_work() {
    let dir = folder();
    let train = |options: &[&str], words: &[&str]| {
        refused(&dir, 2, &[&["train"], options].concat(), words);
    };
    train(&["--links", "gcp12", "--wan", "gcp12"], &["--wan", "--links"]);
    train(&["--listen", "--relay", "relay.example"], &["--relay", "https://"]);
    train(&["--relay", "none"], &["--listen"]);
    train(&["--wire", "fp4"], &["--wire", "int8"]);
    train(&["--device", "cuda"], &["--device cuda", "pass --device cpu"]);
    train(&["--replicas", "0"], &["--replicas"]);
    train(&["--stages", "0"], &["--stages"]);
    train(&["--stages", "3"], &["4 layers", "can't be cut into 3", "--stages 2 or --stages 4"]);
    train(&["--stages", "5"], &["can't be cut into 5", "--layers 5"]);
    train(&["--layers", "12", "--stages", "12", "--skip", "0.9"], &["--skip 0.9", "no path can meet"]);
    train(&["--skip", "1"], &["--skip", "not including, 1"]);
    train(&["--recovery", "prayer"], &["prayer", "checkfree"]);
    let options = ["match:OPTION=VALUE,OPTION=VALUE", "norm, clip, steps, kept, rate, moments, rate_factor"];
    train(&["--recovery", "match:nonsense=1"], &[&["no option 'nonsense'"][..], &options].concat());
    train(&["--recovery", "match:"], &[&["no option ''"][..], &options].concat());
    train(&["--recovery", "random:seed=1"], &["no option 'seed'", "it has none"]);
    train(&["--recovery", "oracle"], &["only `lab` and `simulate`", "neighbour-snapshot"]);
    train(&["--recovery", "redundant"], &["--recovery redundant", "only `lab` and `simulate`"]);
    train(&["--recovery", "checkfree+", "--slots", "1"], &["--slots 2 or more", "--edge-swaps off"]);
    train(&["--model", "9b"], &["9b", "tiny, 124m"]);
    train(&["--model", "none.json"], &["none.json"]);
    train(&["--churn", "often"], &["--churn often", "16%/h"]);
    train(&["--heads", "3"], &["num_attention_heads"]);
    train(&["--lr=-1"], &["--lr"]);
    // What is wrong is said by who knows what it should be.
    train(&["--lr", "-1"], &["--lr", "above 0"]);
    train(&["--steps", "-5"], &["--steps", "invalid"]);
    train(&["none.toml"], &["none.toml"]);
    fs::write(dir.path().join("bad.toml"), "stagse = 3\n").unwrap();
    train(&["bad.toml"], &["bad.toml", "stagse"]);
    fs::write(dir.path().join("model.json"), "{\"vocab_size\": 3").unwrap();
    train(&["--model", "model.json"], &["model.json", "not a model's config.json"]);
    train(&["--resume"], &["skipstone-run", "holds no run", "leave out --resume"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
    // The same checks without a run.
    refused(&dir, 2, &["config", "--stages", "3"], &["can't be cut into 3"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_model_that_the_machine_cannot_hold() {
    let dir = folder();
    let huge =
        ["train", "--model", "8b", "--width", "65536", "--heads", "64", "--stages", "8", "--out", "run"];
    refused(&dir, 2, &huge, &["this machine has", "TiB", "--model"]);
    assert!(!dir.path().join("run").exists());
}

#[test]
fn corpora_that_cannot_be_trained_on() {
    let dir = folder();
    let train = |data: &str, words: &[&str]| {
        refused(&dir, 2, &["train", "--data", data, "--out", "run", "--tokenizer", "bytes"], words);
        assert!(!dir.path().join("run").exists(), "{data}: a folder was left behind");
    };
    train("none.txt", &["none.txt", "--data"]);
    fs::write(dir.path().join("empty.txt"), " \n\n ").unwrap();
    train("empty.txt", &["empty.txt", "no text"]);
    fs::write(dir.path().join("short.txt"), "too short").unwrap();
    train("short.txt", &["context 64", "use more text or a shorter --context"]);
    fs::write(dir.path().join("latin1.txt"), b"caf\xe9 au lait".repeat(100)).unwrap();
    train("latin1.txt", &["latin1.txt", "not UTF-8 at byte 3", "iconv"]);
    fs::create_dir(dir.path().join("folder")).unwrap();
    train("folder", &["folder", ".txt"]);
    fs::write(dir.path().join("bad.jsonl"), "{\"txt\": \"a\"}\n").unwrap();
    train("bad.jsonl", &["bad.jsonl, line 1", "\"text\""]);
    refused(&dir, 2, &["train", "--tokenizer", "none.json"], &["none.json", "tokenizer"]);
}

#[test]
#[cfg(unix)]
fn a_signal_ends_a_run_whose_data_is_still_being_read() {
    let dir = folder();
    // Nobody ever writes to it.
    assert!(Command::new("mkfifo").arg(dir.path().join("text.txt")).status().unwrap().success());
    let child = Command::new(env!("CARGO_BIN_EXE_skipstone"))
        .args(["train", "--data", "text.txt", "--tokenizer", "bytes", "--out", "run"])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !dir.path().join("run/run.lock").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("its data was being read"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
#[cfg(unix)]
fn a_start_that_was_killed_while_the_data_was_prepared_is_no_hindrance() {
    let dir = folder();
    let out = dir.path().join("run");
    let table = r#"{"regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9}, "links": []}, "node_regions": ["x"]}"#;
    assert!(Command::new("mkfifo").arg(dir.path().join("table.json")).status().unwrap().success());
    let arguments = [
        ["train", "--json"].as_slice(),
        &[
            "--layers",
            "2",
            "--width",
            "32",
            "--heads",
            "2",
            "--stages",
            "2",
            "--steps",
            "2",
            "--context",
            "32",
        ],
        &["--tokenizer", "bytes", "--story-bytes", "200000", "--out", "run", "--wan", "table.json"],
    ]
    .concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_skipstone"))
        .args(&arguments)
        .current_dir(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It opens when the run reads the table: to check it, and once the data is there to keep a copy.
    loop {
        let mut pipe = fs::OpenOptions::new().write(true).open(dir.path().join("table.json")).unwrap();
        if out.join("data/data.json").exists() {
            break;
        }
        std::io::Write::write_all(&mut pipe, table.as_bytes()).unwrap();
        drop(pipe);
        std::thread::sleep(Duration::from_millis(300));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(out.join("data/tokens.bin").exists() && !out.join("run.toml").exists());
    fs::remove_file(dir.path().join("table.json")).unwrap();
    fs::write(dir.path().join("table.json"), table).unwrap();

    refused(&dir, 2, &["train", "--out", "run", "--resume"], &["no run.toml", "leave out --resume"]);
    // What is not of that start is not touched.
    fs::write(out.join("thesis.tex"), "years of work").unwrap();
    refused(&dir, 2, &arguments, &["not empty", "no run.toml"]);
    assert!(out.join("thesis.tex").exists() && out.join("data/tokens.bin").exists());
    fs::remove_file(out.join("thesis.tex")).unwrap();
    let trained = skipstone(dir.path(), &arguments);
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    // A folder of data that was there before is somebody's.
    let own = dir.path().join("own");
    fs::create_dir_all(own.join("data")).unwrap();
    fs::write(own.join("data/tokenizer.json"), "mine").unwrap();
    for _ in 0..2 {
        refused(&dir, 2, &["train", "--out", "own"], &["not empty", "no run.toml"]);
    }
    assert_eq!(fs::read(own.join("data/tokenizer.json")).unwrap(), b"mine");
}

#[test]
fn output_folders_that_are_taken() {
    let dir = folder();
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("thesis.tex"), "years of work").unwrap();
    refused(&dir, 2, &["train", "--out", "taken"], &["taken", "not empty", "no run.toml", "another --out"]);
    refused(&dir, 2, &["train", "--out", "taken", "--resume"], &["holds no run", "no run.toml"]);
    refused(&dir, 2, &["demo", "--out", "taken", "--steps", "20"], &["taken", "not empty"]);
    assert_eq!(fs::read(taken.join("thesis.tex")).unwrap(), b"years of work");

    let used = dir.path().join("used");
    fs::create_dir(&used).unwrap();
    let lock = fs::File::create(used.join("run.lock")).unwrap();
    lock.lock().unwrap();
    refused(&dir, 2, &["train", "--out", "used"], &["used", "in use by another run"]);

    fs::write(dir.path().join("file"), "").unwrap();
    refused(&dir, 2, &["train", "--out", "file"], &["file is a file", "--out"]);
}

#[test]
fn a_port_that_is_taken() {
    let dir = folder();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    refused(
        &dir,
        1,
        &["train", "--port", &port, "--steps", "2", "--story-bytes", "20000"],
        &[&port, "in use"],
    );
}

#[test]
fn models_that_cannot_be_used() {
    let dir = with_model();
    let eval = |words: &[&str]| {
        refused(&dir, 2, &["eval", "model", "--data", "text.txt"], words);
        refused(&dir, 2, &["generate", "model", "--prompt", "the"], words);
    };
    refused(&dir, 2, &["eval", "nowhere", "--data", "text.txt"], &["nowhere", "config.json"]);
    refused(&dir, 2, &["eval", "model"], &["--data PATH"]);
    refused(&dir, 2, &["eval", "model", "--data", "none.txt"], &["none.txt"]);
    refused(&dir, 2, &["eval", "model", "--data", "text.txt", "--skip", "0,1"], &["skip ratio 1"]);
    refused(&dir, 2, &["eval", "model", "--data", "text.txt", "--skip", "a"], &["--skip"]);
    refused(
        &dir,
        2,
        &["eval", "model", "--data", "text.txt", "--stages", "3"],
        &["do not divide over 3", "--stages 1, 2, 4"],
    );
    refused(&dir, 2, &["eval", "model", "--data", "text.txt", "--context", "33"], &["--context 33", "32"]);
    refused(&dir, 2, &["generate", "model", "--prompt", "a", "--temperature=-1"], &["temperature"]);
    refused(&dir, 2, &["generate", "model"], &["--prompt"]);

    let weights = dir.path().join("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    eval(&["model.safetensors is damaged", "shorter than its header says", "copy or download it again"]);
    fs::write(&weights, &whole).unwrap();
    let config = dir.path().join("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"llama\"", "\"gpt2\"")).unwrap();
    eval(&["config.json", "gpt2", "choose a LLaMA model"]);
    fs::write(&config, &text[..40]).unwrap();
    eval(&["config.json", "restore"]);
    fs::write(&config, text).unwrap();
    let tokenizer = dir.path().join("model/tokenizer.json");
    fs::write(&tokenizer, "{}").unwrap();
    eval(&["tokenizer.json"]);
    fs::remove_file(tokenizer).unwrap();
    eval(&["holds no tokenizer.json", "--tokenizer FILE"]);
}

#[test]
#[cfg(feature = "iroh")]
fn tickets_that_are_of_no_use() {
    use skipstone_net::{EndpointKey, InternetReach, Relays};
    use skipstone_types::RunId;
    use skipstone_worlds::live::remote::{Capability, Ticket};
    let dir = folder();
    for command in ["tickets", "manage"] {
        for life in ["0s", "9000h"] {
            refused(&dir, 2, &[command, "run", "--new", "--life", life], &["--life", "1s to 8760h"]);
        }
    }
    let key = EndpointKey::generate();
    let ticket = |capability, expires_unix_s| {
        let host = InternetReach { key: key.public(), ways: vec!["ip:127.0.0.1:9".to_owned()] };
        Ticket::issue(&key, RunId(1), capability, 5, expires_unix_s, host, Relays::None).to_string()
    };
    let (worker, viewer) = (ticket(Capability::Worker, u64::MAX), ticket(Capability::Viewer, u64::MAX));
    // Nobody has to be asked for that.
    refused(&dir, 2, &["join", &viewer], &["a viewer's ticket", "skipstone watch", "tickets DIR --new`"]);
    refused(&dir, 2, &["manage", &viewer], &["a viewer's ticket", "an admin's", "--new --for admin"]);
    refused(&dir, 2, &["manage", &worker, "--stop"], &["a worker's ticket", "--new --for admin"]);
    refused(&dir, 2, &["join", &ticket(Capability::Worker, 1)], &["expired", "days ago", "--new`"]);
    refused(&dir, 2, &["join", "skipstonelinks1abc"], &["invitation to measure links", "skipstone doctor"]);
    refused(&dir, 2, &["manage", &worker, "--revoke", "expired"], &["tickets DIR --revoke expired"]);
    refused(&dir, 2, &["manage", &worker, "--revoke", "all"], &["a ticket's number"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn folders_that_hold_no_run() {
    let dir = folder();
    fs::create_dir(dir.path().join("empty")).unwrap();
    for at in ["nowhere", "empty"] {
        refused(&dir, 2, &["show", at], &[at, "run.toml"]);
    }
    for command in ["audit", "replay"] {
        refused(&dir, 2, &[command, "nowhere"], &["there is no folder nowhere", "--out"]);
        refused(&dir, 2, &[command, "empty"], &["empty holds no run", "journal.bin", "--out"]);
    }
    fs::create_dir_all(dir.path().join("damaged/journal")).unwrap();
    fs::write(dir.path().join("damaged/journal/journal.bin"), b"not a journal at all, but long enough")
        .unwrap();
    refused(&dir, 2, &["audit", "damaged"], &["journal.bin"]);
}

#[test]
fn good_input_is_not_refused() {
    // The counterpart of the tests above: what they damage works when it is whole.
    let dir = with_model();
    let run = |arguments: &[&str]| -> serde_json::Value {
        let output = skipstone(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let eval = run(&["eval", "model", "--data", "text.txt", "--skip", "0,0.5", "--json"]);
    assert_eq!(eval["tokens"], 40 * 45);
    assert_eq!(eval["results"][1]["relays_visited"], 2);
    assert!(eval["results"][0]["loss"].as_f64().unwrap() > 4.0);
    let text = run(&["generate", "model", "--prompt", "the", "--max-tokens", "9", "--skip", "0.5", "--json"]);
    assert_eq!(
        text,
        run(&["generate", "model", "--prompt", "the", "--max-tokens", "9", "--skip", "0.5", "--json"])
    );
    assert_eq!(text["visited"].as_array().unwrap().len(), 2);
    let config = run(&["config", "--lr", "0.5", "--json"]);
    assert_eq!(config["lr"], 0.5);
    let simulated = run(&["simulate", "--faults", "all", "--seeds", "1..3", "--iterations", "8", "--json"]);
    assert_eq!(simulated["seeds"], 3);
    let stage =
        ["bench", "stage", "--width", "32", "--heads", "2", "--layers", "1", "--context", "16", "--json"];
    let stage = run(&stage);
    for key in ["forward_ms", "backward_ms", "optimizer_ms", "tokens_per_s", "peak_rss_bytes"] {
        assert!(stage[key].as_f64().unwrap() > 0.0, "{key}");
    }
}
