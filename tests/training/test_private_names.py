"""What training takes from other libraries beyond what they promise to keep.

When an upgrade breaks one of these, the name here is what to look for in its release notes.
"""

import inspect

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from sklearn.callback import CallbackSupportMixin


def test_scikit_learn_begins_a_fit_by_init_callback_context() -> None:
    """`tsm2.training.callbacks`; scikit-learn documents it for those who write estimators."""
    name = "_init_callback_context"
    assert hasattr(CallbackSupportMixin, name), f"scikit-learn's callbacks lost {name}"
    parameters = inspect.signature(getattr(CallbackSupportMixin, name)).parameters
    assert {"max_subtasks", "sequential_subtasks"} <= set(parameters), f"{name} takes other names"


def test_accelerate_lets_go_of_its_state_by_reset_state() -> None:
    """`tsm2.training.loop`: else a second fit could not have another precision or device."""
    for state, name in ((PartialState, "_shared_state"), (AcceleratorState, "_reset_state")):
        assert hasattr(state, name), f"accelerate's {state.__name__} lost {name}"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not PartialState._shared_state, "_shared_state is not empty after _reset_state"
    Accelerator(cpu=True, mixed_precision="no")
    assert PartialState._shared_state, "_shared_state does not tell that there is a state"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)
