"""Records of TensorBoard's HParams tab: what a run was given, and how it ended."""

import time
from collections.abc import Mapping
from typing import Any

HyperParameters = Mapping[str, bool | int | float | str]


def session_start(values: HyperParameters) -> Any:
    """The summary that makes a run a row of the table.

    There is no summary of the *experiment* on purpose: TensorBoard would take one run's and hide
    the columns of all others. Without it the columns are the union over all runs, those that differ
    between runs first.

    Args:
        values: column → value.
    """
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    # Without a trial of its own a run is named by its folder; the default would join equal ones.
    return hparams_pb(dict(values), trial_id="")


def session_end(success: bool) -> Any:
    """The summary that tells whether a run came to its end."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    summary = Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=end)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    return summary
