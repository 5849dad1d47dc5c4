"""Messages of jsonargparse become one line that names the key, what it must be, and what it is."""

import pytest

from lit_bottleneck.cli.messages import in_one_line

OF_AN_OLD_JSONARGPARSE = """Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'NoneType'>, list[lightning.pytorch.callbacks.callback.Callback]]
  Errors:
    - Expected a <class 'NoneType'>
    - Problem with given class_path 'lightning.pytorch.callbacks.ModelCheckpoint':
        Validation failed: Key 'monitr' is not expected
    - Not a valid subclass of Callback
      Subclass types expect one of:
      - a class path (str)
      - a dict with class_path entry
  Given value type: <class 'list'>
  Given value: [{'class_path': 'lightning.pytorch.callbacks.ModelCheckpoint', 'init_args': {'monitr': 1}}]"""
OF_A_CALLABLE = """Parser key "model":
  Errors:
    - Problem with given class_path 'lit_bottleneck.VIBClassifier':
        Parser key "optimizer":

          - Expected a path but x either not accessible or invalid
          - Type typing.Callable[..., Optimizer] expects a function or a callable class: Parser key "lr":
              - Expected a <class 'float'>
              - Expected a typing.Literal['fast', 'slow']
              Given value: x. Got value: Namespace(class_path='torch.optim.Adam', init_args=Namespace(lr='x'))
    - Expected a <class 'NoneType'>"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (OF_AN_OLD_JSONARGPARSE, "trainer.callbacks (ModelCheckpoint): Key 'monitr' is not expected"),
        (OF_A_CALLABLE, "model.init_args.optimizer.init_args.lr: must be float or Literal['fast', 'slow']; got x"),
        ("Errors:\n  - beta must be finite; got inf\n  - Expected a <class 'float'>", "beta must be finite; got inf"),
        ("latent_dim=3 needs more", "latent_dim=3 needs more"),
        ("two\n\n  lines", "two; lines"),
        ("Errors:\n  Subtypes: none", "Errors:; Subtypes: none"),
        ("a" * 1001, f"{'a' * 1000} ..."),
    ],
)
def test_a_message_becomes_one_line_of_what_counts(message: str, line: str) -> None:
    assert in_one_line(message) == line
