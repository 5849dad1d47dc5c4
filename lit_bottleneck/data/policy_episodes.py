"""Episodes of a datamodule's policy, played and filmed beside those of an expert."""

from typing import Any

import numpy as np

from lit_bottleneck.data.demonstrations import Demonstrations, record
from lit_bottleneck.data.environments import make_environment
from lit_bottleneck.data.episodes import Episodes
from lit_bottleneck.data.films import Film, film, rendered, replay

_SEED = 1810_00821  # of the episodes of a test, which start alike in all runs


class PolicyEpisodes:
    """Mixin for datamodules with a policy that is to act as an expert does; it stands before the LightningDataModule.

    ``callbacks.Episodes`` logs the return of the policy's episodes in a test, and draws them.

    Attributes:
        environment: a name registered with gymnasium, such as ``"Pendulum-v1"``.
        environment_kwargs: arguments of the environment.
        demonstrations: of the expert.
        test_episodes: how many episodes a test plays.
    """

    environment: str
    environment_kwargs: dict[str, Any]
    demonstrations: Demonstrations
    test_episodes: int = 10
    _expert: Episodes | None = None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the policy's most likely action of one observation, within its box."""
        raise NotImplementedError

    @property
    def expert(self) -> Episodes:
        """The expert's episodes."""
        if self._expert is None:
            self._expert = self.demonstrations.load(self.make_environment())
        return self._expert

    @property
    def expert_steps(self) -> Episodes:
        """The steps of these episodes that are learnt from."""
        return self.expert.every(self.demonstrations.every)

    def make_environment(self, **kwargs: Any) -> Any:
        """Make the environment, with further arguments."""
        return make_environment(self.environment, self.environment_kwargs | kwargs)

    def play(self) -> Episodes:
        """Play the episodes of a test, which start alike in all runs."""
        return record(self.make_environment(), self.act, self.test_episodes, _SEED)

    def films(self, count: int, height: int) -> tuple[Film, Film]:
        """Film the expert's first episode, and one of the policy from the same start.

        Args:
            count: frames of the expert's film at most.
            height: of a frame, in pixels.

        Returns:
            Films of expert and policy; without frames where nothing is rendered, or an episode cannot be repeated.
        """
        expert = self.expert.part(0, 1)
        environment, problem = rendered(self.make_environment)
        every = -(-int(expert.lengths[0]) // count)
        seed = 0 if expert.seeds is None else int(expert.seeds[0])
        policy = film(environment, self.act, seed, every, height, problem)
        return replay(environment, expert, every, height, problem), policy
