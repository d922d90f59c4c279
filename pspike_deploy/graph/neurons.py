"""Spiking neurons with a state of their own, and the read-out that belongs to them.

One node covers the two-state family: LIF, adLIF, cAdLIF, RadLIF, SiLIF, C-SiLIF, SE- and EF-adLIF,
resonate-and-fire, BRF, HRF and the neuron of SpikingSSMs. What sets them apart are constants, the
order of the two updates and the kind of reset; ``docs/guides/two-state-neurons.md`` has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from pspike_deploy.graph.node import Array, Node, Shape

#: Fields of :class:`TwoStateNeuron` with one number per neuron: those that multiply a state, and
#: those that are added to one or compared with it.
TWO_STATE_COEFFICIENTS: Final = ("a_uu", "a_uw", "a_wu", "a_ww", "r_decay", "k_u", "k_w")
TWO_STATE_AMOUNTS: Final = ("f_u", "f_w", "reset_by", "threshold", "r_jump")
TWO_STATE_VECTORS: Final = (*TWO_STATE_COEFFICIENTS, *TWO_STATE_AMOUNTS)
#: What the update of w sees, and which state the input enters; see :class:`TwoStateNeuron`.
ORDERS: Final = ("second_first", "together", "membrane_first", "current_first")
#: ``soft``: the spike subtracts one step later; ``hard``: the membrane is 0 in the step of a spike.
RESETS: Final = ("soft", "hard")
#: A neuron fires where its value is strictly greater (``gt``), or also where it is equal (``ge``).
TIES: Final = ("gt", "ge")
#: Start of all states: zero, or drawn from U[0, 1) for every sample.
INITIAL_STATES: Final = ("zero", "random")


@dataclass(frozen=True, eq=False)
class TwoStateNeuron(Node):
    """Spiking neuron with membrane u, second state w and last spike s; all arrays (neurons,).

    Let I = x[t] + ``recurrent_gain`` V s[t-1] and m = u[t-1] - ``reset_by`` s[t-1]; r is the
    refractory state of t-1, and u, w, s on the right are those of t-1:

        order second_first:    w[t] = a_wu u + a_ww w + f_w s - k_w r w
                               u[t] = a_uu m + a_uw w[t] + f_u s - k_u r m + I
        order together:        u[t] = a_uu m + a_uw w + f_u s - k_u r m + I
                               w[t] = a_wu m + a_ww w + f_w s - k_w r w
        order membrane_first:  u[t] as in together; then the spike and the reset; then
                               w[t] = a_wu u[t] + a_ww w + f_w s[t] - k_w r w
        order current_first:   w[t] = a_wu u + a_ww w + f_w s - k_w r w + I
                               u[t] = a_uu m + a_uw w[t] + f_u s - k_u r m

        s[t] = 1 if u[t] - r > threshold else 0          (``tie`` ge: also where equal)
        u[t] = 0 where s[t] = 1                          (``reset`` hard only)
        r[t] = r_decay r + r_jump s[t]

    ``f_u``, ``f_w``: what the neuron's own spike adds; ``k_u``, ``k_w``: damping by the refractory
    state; ``r_jump`` 0 where there is none. ``recurrent_weight`` V (neurons, neurons): synapses
    from the layer to itself, row = receiver; (0, 0) where there are none, and the gain (0,). A
    one-state neuron has a_uw = a_wu = f_w = 0; with order current_first w is the synaptic current
    of a current-based neuron, which a reset of the membrane leaves alone. The input gain belongs to
    the node in front.

    ``initial_state`` zero, or random: u, w and s start at the uniforms 0, 1 and 2 (as steps) of
    the noise site ``site``; -1 where nothing is drawn. r starts at 0. The first s is then a
    fraction.
    Sources: SiLIF and C-SiLIF, arXiv 2506.06374; SE-adLIF, Nat. Commun. 16 (2025); BRF, ICML 2024.
    """

    spikes: ClassVar[bool] = True
    integrates: ClassVar[bool] = True

    a_uu: Array
    a_uw: Array
    a_wu: Array
    a_ww: Array
    f_u: Array
    f_w: Array
    reset_by: Array
    threshold: Array
    r_decay: Array
    r_jump: Array
    k_u: Array
    k_w: Array
    recurrent_weight: Array
    recurrent_gain: Array
    order: str = "together"
    reset: str = "soft"
    tie: str = "gt"
    initial_state: str = "zero"
    site: int = -1

    @property
    def input_shape(self) -> Shape:
        return tuple(self.a_uu.shape)

    @property
    def noise_site(self) -> int | None:
        return self.site if self.initial_state == "random" else None

    def draws(self, steps: int) -> int:
        return 3

    @property
    def state_words(self) -> int:
        return (2 + bool(self.r_jump.any())) * int(self.a_uu.size)

    @property
    def is_recurrent(self) -> bool:
        """Whether spikes return through synapses."""
        return self.recurrent_weight.size > 0


@dataclass(frozen=True, eq=False)
class LeakyIntegrator(Node):
    """Read-out neuron without spikes: u[t] = decay u[t-1] + x[t]; y[t] = u[t].

    ``decay`` (neurons,). ``initial_state`` zero, or random: u starts at the uniform of step 0 of
    the noise site ``site``; -1 where nothing is drawn.
    """

    integrates: ClassVar[bool] = True

    decay: Array
    initial_state: str = "zero"
    site: int = -1

    @property
    def state_words(self) -> int:
        return int(self.decay.size)

    @property
    def input_shape(self) -> Shape:
        return tuple(self.decay.shape)

    @property
    def noise_site(self) -> int | None:
        return self.site if self.initial_state == "random" else None

    def draws(self, steps: int) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class SoftmaxSum(Node):
    """Read-out on the host: y[t] = softmax(x[0]) + … + softmax(x[t]), over the neurons.

    ``shape``: (classes,). ``table``: empty in a float graph; in an integer graph samples of exp(-v)
    for v = 0, 2**-s, 2 * 2**-s, …, with s = ``table_step_bits``.
    """

    shape: Shape
    table: Array
    table_step_bits: int = 0

    @property
    def input_shape(self) -> Shape:
        return self.shape

    @property
    def state_words(self) -> int:
        return self.shape[0]
