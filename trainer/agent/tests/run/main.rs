//! The real `yolo-agent` with real ranks.
//!
//! Ranks are shell scripts where the exit code is all they say, and this test's own executable with
//! the first argument `rank` where they speak the protocol (see `rank`). Hence the own `main`.

mod endings;
mod group;
mod images;
mod keeping;
mod output;
mod rank;
mod serving;
mod stopping;
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Lists test functions of a module under their own names.
macro_rules! trials {
    ($($module:ident :: $name:ident),* $(,)?) => {
        vec![$(Trial::test(
            concat!(stringify!($module), "::", stringify!($name)),
            || { $module::$name(); Ok(()) },
        )),*]
    };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "rank") {
        return rank::play(&args[1..]);
    }
    let trials = trials![
        endings::all_ranks_succeed_in_their_places,
        endings::a_failing_rank_is_remembered_and_its_peers_are_stopped,
        endings::a_killed_rank_is_reported_with_its_signal,
        endings::a_reason_and_the_last_report_survive_an_exit_right_after_them,
        endings::last_words_of_success_are_kept,
        endings::a_cause_is_preferred_to_its_echo,
        endings::a_missing_program_is_a_configuration_error,
        endings::a_bad_environment_or_configuration_is_refused,
        endings::a_bad_command_line_is_refused,
        endings::a_trial_of_katib_is_marked_when_its_ranks_succeeded_and_not_else,
        group::ranks_start_together_and_a_killed_one_restarts_all_in_place,
        group::when_no_restart_is_left_every_worker_says_why,
        group::a_failure_that_would_repeat_itself_ends_all,
        group::a_worker_whose_ranks_noticed_that_another_is_gone_says_why_it_is,
        group::a_worker_does_not_name_itself_as_the_cause,
        group::a_worker_that_is_gone_is_awaited_and_another_pod_takes_its_place,
        group::a_worker_that_is_asked_to_stop_alone_is_awaited_too,
        group::a_worker_that_is_asked_to_stop_has_its_time_although_its_successor_is_there,
        group::who_waits_for_another_can_be_asked_to_stop,
        group::without_worker_0_the_others_wait_for_its_successor,
        group::worker_0_that_is_asked_to_stop_alone_is_awaited_too,
        group::an_earlier_pod_of_worker_0_is_not_listened_to,
        group::a_worker_without_the_secret_is_not_let_in,
        group::a_request_to_stop_is_no_reason_to_restart,
        group::who_is_asked_to_stop_does_not_begin_again,
        group::a_worker_on_its_own_restarts_its_ranks_too,
        images::ranks_share_a_file_that_outlives_them,
        images::one_rank_or_no_cache_means_no_file,
        images::a_missing_scratch_folder_is_told,
        keeping::ranks_begin_with_the_kept_run_and_success_waits_until_it_is_kept,
        keeping::without_its_store_no_rank_begins_and_no_run_succeeds,
        output::several_ranks_write_whole_lines_with_a_prefix,
        output::a_single_rank_writes_as_it_likes,
        output::install_puts_a_program_that_runs_into_the_folder,
        output::install_says_where_it_cannot_write,
        serving::metrics_progress_and_health_are_served,
        serving::nonsense_from_a_rank_is_logged_and_dropped,
        serving::a_rank_of_another_attempt_is_turned_away,
        serving::the_last_values_can_be_scraped_while_lingering,
        stopping::a_rank_that_listens_stops_after_its_step,
        stopping::a_rank_that_does_not_listen_gets_the_signal,
        stopping::a_rank_that_ignores_sigterm_is_killed_after_the_grace,
        stopping::a_second_sigterm_ends_everything_at_once,
        stopping::user_signals_reach_the_ranks,
        stopping::orphans_are_reaped_and_leftovers_killed,
        stopping::what_a_launcher_started_ends_before_the_next_attempt,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
