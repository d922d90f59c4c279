"""What a neuron computes in one step: one small function per node type, on int64 vectors.

Values are (neurons,) and states (words, neurons); where samples run side by side they are (samples,
neurons) and (words, samples, neurons), and the same functions compute them.

``node`` holds a node's parameters and shifts under their names in the equations; every shift may
differ from neuron to neuron. ``at`` is the place in time. Registers are symmetric:
``bits`` bits hold -L ... L with L = 2**(bits - 1) - 1.
"""

import numpy as np

from pspike_processes.noise import UNIFORM_BITS

ACCUMULATOR_BITS = 48


# --- rounding ------------------------------------------------------------------------------


def half_up(v, s):
    """v * 2**-s rounded to the nearest integer, ties upwards; exact where s <= 0."""
    right, left = np.maximum(s, 0), np.maximum(-s, 0)
    half = np.where(right > 0, np.left_shift(1, np.maximum(right - 1, 0)), 0)
    return np.right_shift(np.left_shift(v, left) + half, right)


def toward_zero(v, s):
    """v * 2**-s with the fraction cut off, s >= 0."""
    return np.right_shift(v + (np.right_shift(v, 63) & (np.left_shift(1, s) - 1)), s)


def by_mode(values, states):
    """Values (modes, neurons) beside states that may have an axis of samples between the two."""
    return values if states.ndim == values.ndim else values[:, None]


# --- one function per node type ------------------------------------------------------------


def synapses(node, at, x):
    """Lava's Dense has added up the products; what is left is the register of the sum."""
    return node.fit("output", x, node.bits, at)


def host_synapses(node, at, x):
    """Linear behind the read-out, on the host: y = fit(W x)."""
    return node.fit("output", x @ node.weight.T, node.bits, at)


def channel_affine(node, at, x):
    """Gain and offset: y = fit(half_up(fit(a * x + b, 48), shift))."""
    r = node.fit("accumulator", node.a * x + node.b, ACCUMULATOR_BITS, at)
    return node.fit("output", half_up(r, node.shift), node.bits, at)


def bernoulli(node, at, x):
    """Stochastic spike: 1 where U < Q, with Q = clamp(half_up(fit(a * x + b, 48), shift))."""
    r = node.fit("accumulator", node.a * x + node.b, ACCUMULATOR_BITS, at)
    node.code = np.clip(half_up(r, node.shift), 0, 2**node.noise_bits)
    return (node.noise.integers(node.site, at, x.shape[-1]) < node.code).astype(np.int64)


def stochastic_bernoulli(node, at, x):
    """Stochastic spike whose Q is rounded by the bits behind U: up where they are below y's rest.

    ``code`` is the mean of Q over them, in units of 2**-53.
    """
    y = node.fit("accumulator", node.a * x + node.b, ACCUMULATOR_BITS, at)
    word = node.noise.integers(node.site, at, x.shape[-1], UNIFORM_BITS)
    spare, one = UNIFORM_BITS - node.noise_bits, 2**node.noise_bits
    right, left = np.maximum(node.shift, 0), np.maximum(-node.shift, 0)
    r = np.minimum(right, spare)
    last = np.left_shift(1, r) - 1
    lift = np.left_shift(last - (np.right_shift(word, spare - r) & last), right - r)
    q = np.clip(np.right_shift(np.left_shift(y, left) + lift, right), 0, one)
    mean = np.right_shift(np.left_shift(y, left), right - r)
    node.code = np.left_shift(np.clip(mean, 0, np.left_shift(one, r)), spare - r)
    return (np.right_shift(word, spare) < q).astype(np.int64)


def diagonal_ssm(node, at, x):
    """Complex modes: state (2 * modes, neurons), real parts first; old values on the right."""
    re, im = np.split(node.state, 2)
    f, s, g = node.decay_shift, node.read_shift, node.input_shift
    if node.state.ndim > 2 and products_are_exact(node):
        return modes_side_by_side(node, at, x)
    names = ("a_re", "a_im", "b_re", "b_im", "c_re", "c_im")
    a_re, a_im, b_re, b_im, c_re, c_im = (by_mode(getattr(node, n), re) for n in names)
    new_re = toward_zero(a_re * re, f) - toward_zero(a_im * im, f)
    new_im = toward_zero(a_im * re, f) + toward_zero(a_re * im, f)
    new_re = new_re + toward_zero(b_re * x, g)
    new_im = new_im + toward_zero(b_im * x, g)
    node.state[:] = node.fit("state", np.concatenate([new_re, new_im]), node.state_bits, at)
    re, im = np.split(node.state, 2)
    y = (toward_zero(c_re * re, s) - toward_zero(c_im * im, s)).sum(axis=0)
    y = y + toward_zero(node.d * x, node.direct_shift)
    return node.fit("output", y, node.bits, at)


def products_are_exact(node):
    """Whether float64 holds all products with states: integers below 2**53."""
    largest = max(np.abs(v).max() for v in (node.a_re, node.a_im, node.c_re, node.c_im))
    return int(largest) << node.state_bits < 2**52


def modes_side_by_side(node, at, x):
    """The same for many samples in float64, which is exact here and has vector instructions."""
    if not hasattr(node, "scaled"):
        shifts = {"a": node.decay_shift, "c": node.read_shift}
        node.scaled = {
            name: (getattr(node, name) * 2.0 ** -shifts[name[0]])[:, None]
            for name in ("a_re", "a_im", "c_re", "c_im")
        }
        node.by_spike = [
            toward_zero(b, node.input_shift)[:, None].astype(np.float64)
            for b in (node.b_re, node.b_im)
        ]
        node.spare = np.empty((4, len(node.a_re), *np.shape(x)))
    scaled, (one, other, new_re, new_im) = node.scaled, node.spare[:, :, : len(x)]
    re, im = np.split(node.state.astype(np.float64), 2)

    def truncated(name, values, out):
        return np.trunc(np.multiply(scaled[name], values, out=out), out=out)

    np.subtract(truncated("a_re", re, one), truncated("a_im", im, other), out=new_re)
    np.add(truncated("a_im", re, one), truncated("a_re", im, other), out=new_im)
    for new, b, spike in zip((new_re, new_im), (node.b_re, node.b_im), node.by_spike, strict=True):
        if x.min() >= 0 and x.max() <= 1:
            new += np.multiply(spike, x, out=one)
        else:
            new += toward_zero(b[:, None] * x, node.input_shift)
    if max(-new_re.min(), new_re.max(), -new_im.min(), new_im.max()) < 2 ** (node.state_bits - 1):
        node.state[: len(re)], node.state[len(re) :] = new_re, new_im
    else:
        new = np.concatenate([new_re, new_im]).astype(np.int64)
        node.state[:] = node.fit("state", new, node.state_bits, at)
        new_re[:], new_im[:] = np.split(node.state, 2)
    y = np.subtract(truncated("c_re", new_re, one), truncated("c_im", new_im, other), out=one)
    y = y.sum(axis=0).astype(np.int64) + toward_zero(node.d * x, node.direct_shift)
    return node.fit("output", y, node.bits, at)


def relu(node, at, x):
    """Rectifier: y = max(x, 0)."""
    return np.maximum(x, 0)


def tabled(node, x):
    """T(abs(x)) between the n + 1 entries of a table; 0 beyond them."""
    n, s = node.table.size - 1, node.interval_shift
    v = np.abs(x)
    i = np.right_shift(v, s)
    r = v - np.left_shift(i, s)
    below = np.minimum(i, n - 1)
    rise = (node.table[below + 1] - node.table[below]) * r
    return np.where(i >= n, 0, node.table[below] + toward_zero(rise, s))


def gelu(node, at, x):
    """Rectifier minus an even function that stands in a table."""
    return np.maximum(x, 0) - tabled(node, x)


def sigmoid(node, at, x):
    """Sigmoid: sigmoid(-v) stands in a table, and sigmoid(v) = 1 - sigmoid(-v)."""
    c = tabled(node, x)
    y = np.where(x < 0, c, np.left_shift(1, node.one_shift) - c)
    return node.fit("output", y, node.bits, at)


def multiply(node, at, x1, x2):
    """Product: y = fit(half_up(x1 * x2, shift))."""
    return node.fit("output", half_up(x1 * x2, node.shift), node.bits, at)


def add(node, at, *inputs):
    """Sum: y = fit(x1 + x2 + ...), all binary points equal."""
    return node.fit("output", sum(inputs), node.bits, at)


def mean_pool(node, at, x):
    """Running mean: state (1, neurons) holds the sum S; y = floor((2 S + n) / (2 n)), n = t + 1."""
    total = node.state[0] + half_up(x, node.shift)
    node.state[0] = node.fit("state", total, node.state_bits, at)
    n = at.step + 1
    return (2 * node.state[0] + n) // (2 * n)


def drawn(node, at, word, neurons):
    """Noise integers of one state word at the start of a sample; zeros where nothing is drawn."""
    if node.site < 0:
        return np.zeros((*np.shape(at.sample), neurons), np.int64)
    return node.noise.integers(node.site, at._replace(step=word), neurons)


def two_state(node, at, x, returned=None):
    """Spiking neuron: states u, w, r and the last spike s in units of 2**-noise_bits.

    ``returned``: sums of the recurrent synapses, which carry the spikes of the step before.
    """
    if at.step == 0:
        u, w, s = (drawn(node, at, word, x.shape[-1]) for word in range(3))
        node.state[0] = half_up(u, node.start_shift)
        node.state[1] = half_up(w, node.start_shift)
        node.state[2], node.state[3] = 0, s
    u, w, r, s = node.state

    def amount(value):
        return toward_zero(value * s, node.noise_bits)

    def register(name, values):
        return node.fit(name, values, node.state_bits, at)

    m = u - amount(node.reset_by)
    current = x
    if returned is not None and at.step > 0:
        current = x + half_up(node.recurrent_gain * returned, node.recurrent_shift)
    kept = toward_zero(node.a_ww * w, node.a_ww_shift)
    kept = kept - toward_zero(toward_zero(node.k_w * r, node.k_w_shift) * w, node.point_shift)
    drive = toward_zero(node.a_uu * m, node.a_uu_shift) + amount(node.f_u)
    drive = drive - toward_zero(toward_zero(node.k_u * r, node.k_u_shift) * m, node.point_shift)
    if node.order == "current_first":
        kept, current = kept + current, 0
    if node.order in ("second_first", "current_first"):
        w = register("w", toward_zero(node.a_wu * u, node.a_wu_shift) + kept + amount(node.f_w))
    u = register("u", drive + toward_zero(node.a_uw * w, node.a_uw_shift) + current)
    if node.order == "together":
        w = register("w", toward_zero(node.a_wu * m, node.a_wu_shift) + kept + amount(node.f_w))
    above = u - r - node.threshold
    spikes = (above >= 0 if node.tie == "ge" else above > 0).astype(np.int64)
    if node.reset == "hard":
        u = u * (1 - spikes)
    if node.order == "membrane_first":
        w = register("w", toward_zero(node.a_wu * u, node.a_wu_shift) + kept + node.f_w * spikes)
    r = register("r", toward_zero(node.r_decay * r, node.r_decay_shift) + node.r_jump * spikes)
    node.state[:] = u, w, r, spikes << node.noise_bits
    return spikes


def loihi_lif(node, at, x, returned=None):
    """Loihi's neuron: states u, a, v and the last spike s; v is 0 where it fires.

    ``returned``: sums of the recurrent synapses, which carry the spikes of the step before.
    """
    u, a, v, s = node.state

    def register(name, values):
        return node.fit(name, values, node.state_bits, at)

    drive = half_up(node.input_gain * x, node.input_gain_shift)
    if returned is not None and at.step > 0:
        drive = drive + half_up(node.recurrent_gain * returned, node.recurrent_shift)
    u = register("u", toward_zero(node.current_decay * u, node.current_decay_shift) + drive)
    a = toward_zero(node.adaptation_decay * a, node.adaptation_decay_shift)
    a = register("a", a - node.adaptation_jump * s)
    v = toward_zero(node.membrane_decay * v, node.membrane_decay_shift) + u + a + node.bias
    v = register("v", v)
    fires = v >= node.threshold if node.tie == "ge" else v > node.threshold
    spikes = fires.astype(np.int64)
    node.state[:] = u, a, v * (1 - spikes), spikes
    return spikes


def resonate_and_fire(node, at, x):
    """Damped rotation that fires once per turn: one row of states, all re and then all im."""
    re, im = np.split(node.state[0], 2, axis=-1)
    x_re, x_im = np.split(x, 2, axis=-1)
    f, g = node.cos_decay_shift, node.sin_decay_shift
    new_re = toward_zero(node.cos_decay * re, f) - toward_zero(node.sin_decay * im, g)
    new_im = toward_zero(node.sin_decay * re, g) + toward_zero(node.cos_decay * im, f)
    new_re = new_re + half_up(node.real_gain * x_re, node.real_gain_shift)
    new_im = new_im + half_up(node.imaginary_gain * x_im, node.imaginary_gain_shift)
    new_re = node.fit("re", new_re, node.state_bits, at)
    new_im = node.fit("im", new_im, node.state_bits, at)
    spikes = (new_re >= node.threshold) & (new_im >= 0) & (im < 0)
    node.state[0] = np.concatenate([new_re, new_im], axis=-1)
    return spikes.astype(np.int64)


def delta_encoder(node, at, x):
    """Sends changes once they are large: states are the last input, what was not sent, the error.

    ``error`` names what is compared: the last change, or all since the last message.
    """
    last, rest, gathered = node.state
    now = node.fit("x", np.left_shift(x, node.in_shift), node.state_bits, at)
    d = node.fit("d", now - last + rest, node.state_bits, at)
    compared = d
    if node.error == "accumulated":
        compared = node.fit("error", gathered + d, node.state_bits, at)
    sent = np.where(np.abs(compared) >= node.threshold, d, 0)
    node.state[:] = now, d - sent, np.where(sent != 0, 0, compared)
    return node.fit("output", np.right_shift(sent, node.out_shift), node.bits, at)


def leaky_integrator(node, at, x):
    """Read-out neuron: u = fit(toward_zero(decay * u) + x); state (1, neurons)."""
    if at.step == 0:
        node.state[0] = half_up(drawn(node, at, 0, x.shape[-1]), node.start_shift)
    total = toward_zero(node.decay * node.state[0], node.decay_shift) + x
    node.state[0] = node.fit("state", total, node.state_bits, at)
    return node.state[0].copy()


def second_order_ssm(node, at, u):
    """Oscillators: z = fit(a_zz z + a_zx x + u), x = fit(x + a_xz z); state (2, neurons)."""
    z, x = node.state
    z = toward_zero(node.a_zz * z, node.a_zz_shift) + toward_zero(node.a_zx * x, node.a_zx_shift)
    z = node.fit("z", z + u, node.state_bits, at)
    x = node.fit("x", x + toward_zero(node.a_xz * z, node.a_xz_shift), node.state_bits, at)
    node.state[:] = z, x
    return x


def softmax_sum(node, at, x):
    """Sum of softmax over time, on the host: state (1, classes)."""
    power = tabled(node, x.max(axis=-1, keepdims=True) - x)
    whole = power.sum(axis=-1, keepdims=True)
    share = (2 * np.left_shift(power, node.share_shift) + whole) // (2 * whole)
    node.state[0] = node.fit("state", node.state[0] + share, node.state_bits, at)
    return node.state[0].copy()


OPERATIONS = {
    "Synapses": synapses,
    "HostSynapses": host_synapses,
    "ChannelAffine": channel_affine,
    "Bernoulli": bernoulli,
    "StochasticBernoulli": stochastic_bernoulli,
    "DiagonalSSM": diagonal_ssm,
    "Relu": relu,
    "Gelu": gelu,
    "Sigmoid": sigmoid,
    "Multiply": multiply,
    "Sum": add,
    "MeanPool": mean_pool,
    "TwoStateNeuron": two_state,
    "LoihiLIF": loihi_lif,
    "ResonateAndFire": resonate_and_fire,
    "DeltaEncoder": delta_encoder,
    "LeakyIntegrator": leaky_integrator,
    "SecondOrderSSM": second_order_ssm,
    "SoftmaxSum": softmax_sum,
}
