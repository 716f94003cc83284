//! What a driver made of kernels is kept, and a start without it, or with a broken one, is as any.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Case, alone, resident, run_guarded};
use crate::Executor;
use crate::gpu::{AdapterChoice, GpuExecutor, GpuOptions};

fn open(folder: &Path) -> GpuExecutor {
    GpuExecutor::open(&GpuOptions {
        adapter: AdapterChoice::Software,
        timeout: Duration::from_secs(60),
        kernels: Some(folder.to_owned()),
        ..GpuOptions::default()
    })
    .unwrap_or_else(|error| panic!("kernel tests need a software Vulkan adapter: {error}"))
}

fn file(folder: &Path, ending: &str) -> Option<PathBuf> {
    let all = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    all.into_iter().find(|path| path.extension().is_some_and(|found| found == ending))
}

#[test]
fn what_a_start_kept_is_mended_if_it_broke_and_changes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("kernels");
    let case = Case::nhits(3);
    let first = run_guarded(&mut open(&folder), &case);
    assert_eq!(run_guarded(&mut open(&folder), &case), first);
    for ending in ["kernels", "spirv"] {
        let kept = file(&folder, ending).expect("something is kept");
        let whole = fs::read(&kept).unwrap();
        let mut broken = whole.clone();
        *broken.last_mut().unwrap() ^= 1;
        for broken in [broken, whole[..whole.len() - 1].to_vec(), b"hostile".to_vec(), Vec::new()] {
            fs::write(&kept, &broken).unwrap();
            assert_eq!(run_guarded(&mut open(&folder), &case), first);
            assert_ne!(fs::read(&kept).unwrap(), broken, "it was written anew");
        }
    }
}

#[test]
fn kernels_that_stay_are_kept_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let _alone = alone();
    let case = Case::stacks(1);
    let answers: Vec<Vec<f32>> = (0..2)
        .map(|start| {
            let mut executor = open(folder.path());
            executor.set_solo_residents();
            assert_eq!(file(folder.path(), "stays").is_some(), start > 0);
            let stays = executor.reside(&case.plan, resident::for_ever(1)).unwrap();
            let mut output = vec![0.0; case.plan.width(case.plan.output)];
            stays.run(1, &case.input_slices(), &mut output).unwrap();
            output
        })
        .collect();
    assert!(file(folder.path(), "stays").is_some());
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn where_nothing_can_be_kept_all_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("file");
    fs::write(&taken, b"").unwrap();
    run_guarded(&mut open(&taken), &Case::nhits(2));
    assert_eq!(fs::read(&taken).unwrap(), b"");
}
