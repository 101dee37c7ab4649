//! Taking up a run where it stands.

use std::collections::BTreeMap;
use std::path::Path;

use contract::spec::TrainerSpec;
use tch::Tensor;

use super::recovery::Beginning;
use super::snapshots::Source;
use crate::checkpoint::{Loaded, NamedTensors, RunState};
use crate::distributed::Ranks;
use crate::error::Error;
use crate::initial;
use crate::job::JobError;
use crate::report::Reporter;
use crate::step::Learner;

/// What a run without a checkpoint does.
#[derive(Clone, Copy)]
pub enum Begin<'a> {
    /// It begins, with the weights of the job, if it names any, which lie below this folder.
    New(&'a Path),
    /// It begins again. Only rank 0 needs to know with what.
    Again(Option<&'a Beginning>),
}

/// Takes up the newest checkpoint that `source` found, if there is one; else does what `begin` says. That rank hands
/// everything out, so the others need not see the output volume, or not yet.
pub(super) fn restore(
    ranks: &mut Ranks,
    source: Source,
    learner: &mut Learner,
    fresh: RunState,
    begin: Begin<'_>,
    reporter: &mut Reporter,
) -> Result<RunState, Error> {
    let lost = |source| Error::Ranks {
        when: "the start",
        source,
    };
    let mut state = None;
    if let Some(found) = source.found {
        for reason in &found.passed_over {
            reporter.warn(&format!("checkpoint passed over: {reason}"));
        }
        if let Some(loaded) = found.newest {
            state = Some(take_up(loaded, learner, &fresh)?);
        } else {
            match begin {
                Begin::New(dataset) => begin_new(learner, &fresh, dataset, reporter)?,
                Begin::Again(Some(beginning)) => beginning.take_up(learner)?,
                Begin::Again(None) => {}
            }
        }
    }
    let rank = source.rank;
    let told = ranks.value_of(rank, &state).map_err(lost)?;
    if let Some((state, path)) = &told
        && ranks.is_first()
    {
        say_from_where(state, path, rank, &fresh, reporter);
    }
    let state = told.map(|(state, _)| state);

    let updates = state.as_ref().map_or(0, |state| state.ema_updates);
    if ranks.world() > 1 {
        let mut of_source = |tensors| shared(ranks, rank, tensors).map_err(lost);
        let model = of_source(learner.network.state().export()?)?;
        let ema = of_source(learner.ema.state().export()?)?;
        let momentum = of_source(learner.optimizer.export()?)?;
        learner.network.state_mut().import(&model)?;
        learner.ema.restore(updates, &ema)?;
        learner.optimizer.import(&momentum)?;
        if let Some(state) = &state {
            restore_scaler(learner, state)?;
        }
    }
    Ok(match state {
        None => fresh,
        Some(state) => RunState {
            machine: fresh.machine,
            spent: spent(&state, &fresh.spec),
            early_stopping: state
                .early_stopping
                .with_patience(fresh.spec.training.patience),
            spec: fresh.spec,
            ..state
        },
    })
}

/// The share of the time that was used, of the time that there is now.
fn spent(state: &RunState, spec: &TrainerSpec) -> f64 {
    let hours = spec.training.hours;
    if hours == state.spec.training.hours {
        state.spent
    } else {
        hours.map_or(0.0, |hours| state.training_seconds / (3600.0 * hours))
    }
}

fn begin_new(
    learner: &mut Learner,
    fresh: &RunState,
    dataset: &Path,
    reporter: &mut Reporter,
) -> Result<(), Error> {
    let Some(weights) = &fresh.spec.model.weights else {
        return Ok(());
    };
    let told = initial::take(&mut learner.network, weights, dataset);
    reporter.say(&told.map_err(JobError::from)?);
    let begun: NamedTensors = learner.network.state().export()?.into_iter().collect();
    learner.ema.restore(0, &begun)?;
    Ok(())
}

/// The loss scale, where both runs have one.
fn restore_scaler(learner: &mut Learner, state: &RunState) -> Result<(), Error> {
    let (Some(scaler), Some(scale)) = (&mut learner.scaler, state.scaler) else {
        return Ok(());
    };
    scaler
        .restore((scale, state.scaler_proved))
        .map_err(|source| Error::Step {
            step: state.step,
            source: source.into(),
        })
}

/// The tensors of `source`.
fn shared(
    ranks: &mut Ranks,
    source: u32,
    tensors: Vec<(String, Tensor)>,
) -> crate::distributed::Result<NamedTensors> {
    let (names, mut values): (Vec<String>, Vec<Tensor>) = tensors.into_iter().unzip();
    ranks.take_all_from(source, &mut values)?;
    Ok(names.into_iter().zip(values).collect::<BTreeMap<_, _>>())
}

/// Also returns where the state was.
fn take_up(
    loaded: Loaded,
    learner: &mut Learner,
    fresh: &RunState,
) -> Result<(RunState, String), Error> {
    let checkpoint = loaded.path.display().to_string();
    let state = loaded.state;
    if state.dataset != fresh.dataset || state.names != fresh.names {
        return Err(Error::ChangedDataset { checkpoint });
    }
    let optimizer = |spec: &TrainerSpec| spec.hyperparameters.optimizer;
    if optimizer(&state.spec) != optimizer(&fresh.spec) {
        return Err(Error::OtherOptimizer {
            checkpoint,
            before: optimizer(&state.spec),
            now: optimizer(&fresh.spec),
        });
    }
    let failed = |source| Error::Restore {
        checkpoint: checkpoint.clone(),
        source,
    };
    learner
        .network
        .state_mut()
        .import(&loaded.model)
        .map_err(failed)?;
    learner
        .ema
        .restore(state.ema_updates, &loaded.ema)
        .map_err(failed)?;
    learner
        .optimizer
        .import(&loaded.optimizer)
        .map_err(failed)?;
    restore_scaler(learner, &state)?;
    Ok((state, checkpoint))
}

fn say_from_where(
    state: &RunState,
    path: &str,
    rank: u32,
    fresh: &RunState,
    reporter: &mut Reporter,
) {
    let whose = if rank == 0 {
        String::new()
    } else {
        format!(" of rank {rank}")
    };
    reporter.say(&format!(
        "going on from {path}{whose} of attempt {} (step {}, epoch {})",
        state.attempt,
        state.step,
        state.epoch + 1
    ));
    let differences = fresh.machine.differences(&state.machine);
    if !differences.is_empty() {
        reporter.warn(&format!(
            "results will not be bit-identical to an uninterrupted run: {}",
            differences.join(", ")
        ));
    }
}
