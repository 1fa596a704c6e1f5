"""A port is a change of prefix: Celery's modules and names are there, below ``django_tasks``."""

from __future__ import annotations

from importlib import import_module

import pytest

from django_tasks import shared_task, states

NAMES = {
    "": "shared_task Task current_task AsyncResult",
    "exceptions": (
        "Retry Reject Ignore TimeoutError TaskRevokedError MaxRetriesExceededError NotRegistered AlreadyRegistered "
        "ImproperlyConfigured OperationalError SoftTimeLimitExceeded TimeLimitExceeded WorkerLostError ChordError "
        "UnpickleableExceptionWrapper TaskPredicate TaskError"
    ),
    "result": "AsyncResult EagerResult result_from_tuple allow_join_result",
    "signals": (
        "before_task_publish after_task_publish task_received task_prerun task_postrun task_success task_retry "
        "task_failure task_internal_error task_revoked task_unknown task_rejected import_modules worker_init "
        "worker_before_create_process worker_process_init worker_process_shutdown worker_ready worker_shutting_down "
        "worker_shutdown heartbeat_sent setup_logging after_setup_logger after_setup_task_logger"
    ),
    "states": (
        "PENDING RECEIVED STARTED SUCCESS FAILURE REVOKED REJECTED RETRY IGNORED "
        "READY_STATES UNREADY_STATES EXCEPTION_STATES PROPAGATE_STATES ALL_STATES precedence state"
    ),
    "utils.log": "get_task_logger get_logger",
    "registry": "TaskRegistry",
}
OF_A_TASK = (
    "name max_retries default_retry_delay rate_limit ignore_result serializer compression acks_late "
    "reject_on_worker_lost track_started expires priority throws typing autoretry_for dont_autoretry_for retry_kwargs "
    "retry_backoff retry_backoff_max retry_jitter store_errors_even_if_ignored store_eager_result "
    "MaxRetriesExceededError OperationalError run delay apply_async apply retry request AsyncResult update_state "
    "before_start on_success on_failure on_retry after_return shadow_name push_request pop_request "
    "delay_on_commit apply_async_on_commit __name__"
)
OF_A_RESULT = (
    "id task_id state status result info traceback get wait ready successful failed ignored forget revoke "
    "revoke_by_stamped_headers then "
    "as_tuple as_list children parent maybe_throw maybe_reraise exists name args kwargs worker date_done retries queue "
    "TimeoutError"
)


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_celery_has_them(module: str) -> None:
    found = import_module(f"django_tasks.{module}".rstrip("."))
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_a_task_has_celery_s_attributes() -> None:
    @shared_task
    def task() -> None: ...

    assert not {name for name in OF_A_TASK.split() if not hasattr(task, name)}


def test_a_result_has_celery_s_attributes() -> None:
    @shared_task
    def task() -> int:
        return 1

    result = task.apply()
    assert [name for name in OF_A_RESULT.split() if not hasattr(result, name)] == []


def test_states_compare_by_what_they_say() -> None:
    assert states.state(states.PENDING) < states.state(states.SUCCESS)
    assert states.state("PROGRESS") > states.state(states.STARTED)
    assert {states.SUCCESS, states.FAILURE, states.REVOKED} <= states.READY_STATES
    assert sorted(states.EXCEPTION_STATES) == [states.FAILURE, states.RETRY, states.REVOKED]
