//! Shows the views of a made-up run: `cargo run -p skipstone-observe --example preview -- live|plain|frame|report`.

mod script;

use skipstone_observe::{Observer, Progress, RunState, Summary, TerminalView, frame};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

const STEPS: u64 = 600;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, otherwise: u64| args.get(index).and_then(|s| s.parse().ok()).unwrap_or(otherwise);
    match args.first().map(String::as_str) {
        Some("live") => play(Progress::choose(false), number(1, 10)),
        Some("plain") => play(Progress::Plain, number(1, 40)),
        Some("frame") => {
            still(number(1, 100) as usize, number(2, 40) as usize, number(3, 155));
            Ok(())
        }
        Some("report") => report(Path::new(args.get(1).map_or(".", String::as_str))),
        Some("why") => {
            let t = skipstone_types::Iteration(number(1, 150));
            print!("{}", skipstone_observe::explain(&script::info(STEPS), &script::events(STEPS), t));
            Ok(())
        }
        _ => {
            Err("preview live [SPEED] | plain [SPEED] | frame WIDTH HEIGHT ITERATION | report DIR | why T"
                .into())
        }
    }
}

/// Plays the run through an [`Observer`], `speed` times as fast as it happened.
fn play(progress: Progress, speed: u64) -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("skipstone-preview-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut observer = Observer::start(&dir, script::info(STEPS), progress)?;
    observer.note("This run is made up; its folder is temporary.");
    let start = Instant::now();
    let now_ms = || start.elapsed().as_millis() as u64 * speed;
    for record in script::events(STEPS) {
        while now_ms() < record.time_ms {
            std::thread::sleep(Duration::from_millis(20));
            observer.tick(now_ms().min(record.time_ms));
        }
        observer.record(record.time_ms, record.event);
    }
    print(observer.finish().summary);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn still(width: usize, height: usize, iteration: u64) {
    let mut state = RunState::new(script::info(STEPS));
    for record in script::events(STEPS) {
        if state.steps() >= iteration {
            break;
        }
        state.apply(&record);
    }
    if std::env::var_os("NO_COLOR").is_none() {
        TerminalView::new(std::io::stdout(), true, (width, height)).draw(&state);
        return;
    }
    for line in frame(&state, width, height) {
        println!("{}", line.text());
    }
}

fn report(dir: &Path) -> Result<(), Box<dyn Error>> {
    let observer = Observer::start(dir, script::info(STEPS), Progress::Quiet);
    let mut observer = observer?;
    for record in script::events(STEPS) {
        observer.record(record.time_ms, record.event);
    }
    let outcome = observer.finish();
    println!("{}", outcome.report?.display());
    print(outcome.summary);
    Ok(())
}

fn print(mut summary: Summary) {
    summary.sample =
        Some("The king went to the old mill, and the miller gave him bread.\nThen he went home.".to_owned());
    println!("{}", summary.render(skipstone_observe::stdout_width()));
}
