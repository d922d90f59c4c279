"""The fewest cores, proved: slices and cores chosen together by OR-tools' CP-SAT.

For demands whose synapses are dense or one to one, what a slice takes depends on its size alone,
and the choice is an integer program: how many neurons of each population every core holds. One
worker, a fixed seed and a limit in deterministic time make the answer reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pspike_deploy.exporters.loihi.capacity import CoreModel
from pspike_deploy.exporters.loihi.demand import Band, Connection, Demand, Dense, PopulationDemand
from pspike_deploy.exporters.loihi.mapping.slices import Bounds

#: Work that the solver may do, in its own unit (about a second of one core).
DETERMINISTIC_TIME: Final = 5.0
#: Largest number of pairs of population and core that the solver is asked about.
MOST_PAIRS: Final = 240


@dataclass(frozen=True)
class Proof:
    """What the solver found.

    Attributes:
        cut: slices of every population, or None where it found nothing better.
        cores: by core the populations with a slice there, in the order of the slices.
        at_least: cores that it proved necessary.
    """

    cut: dict[str, Bounds] | None
    cores: tuple[tuple[str, ...], ...]
    at_least: int


def can_be_exact(demand: Demand, cores: int) -> bool:
    """Whether the solver takes the demand: its neurons, its synapses and its size."""
    if any(len(set(population.compartments)) > 1 for population in demand.populations):
        return False  # what a slice takes depends on which neurons it has
    connections = [c for p in demand.populations for c in p.connections]
    return len(demand.populations) * cores <= MOST_PAIRS and all(
        isinstance(c.pattern, Dense) or _one_to_one(c) for c in connections
    )


def _one_to_one(connection: Connection) -> bool:
    pattern = connection.pattern
    return isinstance(pattern, Band) and pattern.reach == 0 and pattern.sources == pattern.targets


def fewer_cores(demand: Demand, model: CoreModel, known: int, at_least: int, time: float) -> Proof:
    """Look for a mapping with fewer than ``known`` cores, and not fewer than ``at_least``.

    ``time``: deterministic time that the solver may take.
    """
    from ortools.sat.python import cp_model

    program = _Program(cp_model.CpModel(), demand, model, known - 1)
    program.model.add(sum(program.used) >= at_least)
    program.model.minimize(sum(program.used))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = time
    status = solver.solve(program.model)
    if status == cp_model.INFEASIBLE:
        return Proof(None, (), known)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Proof(None, (), max(at_least, int(np.ceil(solver.best_objective_bound - 1e-6))))
    cut, cores = program.read(solver)
    return Proof(cut, cores, max(at_least, int(np.ceil(solver.best_objective_bound - 1e-6))))


class _Program:
    """The integer program; every coefficient is an integer."""

    def __init__(self, model: Any, demand: Demand, core: CoreModel, cores: int) -> None:
        self.model, self.demand, self.core, self.cores = model, demand, core, cores
        self.used = [model.new_bool_var(f"used{j}") for j in range(cores)]
        self.neurons: dict[tuple[str, int], Any] = {}
        self.present: dict[tuple[str, int], Any] = {}
        for population in demand.populations:
            self._place(population)
        self.slices = {
            p.name: sum(self.present[p.name, j] for j in range(cores)) for p in demand.populations
        }
        for j in range(cores):
            self._core(j)
            if j:
                model.add_implication(self.used[j], self.used[j - 1])

    def _place(self, population: PopulationDemand) -> None:
        name = population.name
        for j in range(self.cores):
            count = self.model.new_int_var(0, population.neurons, f"{name}/{j}")
            here = self.model.new_bool_var(f"{name}/{j}?")
            self.model.add(count >= here)
            self.model.add(count <= population.neurons * here)
            self.model.add_implication(here, self.used[j])
            self.neurons[name, j], self.present[name, j] = count, here
        self.model.add(sum(self.neurons[name, j] for j in range(self.cores)) == population.neurons)

    def _core(self, j: int) -> None:
        units: list[Any] = []
        words: list[Any] = []
        axons_in: list[Any] = []
        axons_out: list[Any] = []
        for population in self.demand.populations:
            count, here = self.neurons[population.name, j], self.present[population.name, j]
            units.append(count * self.core.neuron_units(population, 0, 1))
            axons_out.append(self._output_axons(population, count, j))
            for connection in population.connections:
                words.append(self._words(population, connection, count, here, j))
                dense = isinstance(connection.pattern, Dense)
                axons_in.append(connection.pattern.sources * here if dense else count)
        capacity = self.core.capacity
        self.model.add(sum(units) <= capacity.neuron_units)
        self.model.add(sum(words) <= capacity.synaptic_words)
        self.model.add(sum(axons_in) <= capacity.input_axons)
        self.model.add(sum(axons_out) <= capacity.output_axons)
        here = [self.present[p.name, j] for p in self.demand.populations]
        self.model.add(sum(here) <= capacity.groups)

    def _words(
        self, population: PopulationDemand, connection: Connection, count: Any, here: Any, j: int
    ) -> Any:
        if not isinstance(connection.pattern, Dense):
            return count * self.core.synaptic_words(connection, 0, 1)[0]
        bits = connection.weight_bits + self.core.overhead_bits
        most = self.core.capacity.synaptic_words
        name = f"{population.name}/{connection.name}/{j} words"
        per_axon = self.model.new_int_var(0, most, name)
        taken = bits * count + self.core.header_bits * here
        self.model.add(self.core.word_bits * per_axon >= taken)
        return connection.pattern.sources * per_axon

    def _output_axons(self, population: PopulationDemand, count: Any, j: int) -> Any:
        fixed, slices = int(population.host_reads), []
        for target, connection in self.demand.leaving[population.name]:
            if isinstance(connection.pattern, Dense):
                slices.append(self.slices[target])
            else:
                fixed += 1
        if not slices:
            return fixed * count
        name, most = population.name, self.core.capacity.output_axons
        spread = self.model.new_int_var(0, len(slices) * self.cores, f"{name}/{j} destinations")
        self.model.add(spread == sum(slices))
        product = self.model.new_int_var(0, most, f"{name}/{j} axons")
        self.model.add_multiplication_equality(product, [count, spread])
        return product + fixed * count

    def read(self, solver: Any) -> tuple[dict[str, Bounds], tuple[tuple[str, ...], ...]]:
        """Slices and cores of the solution: neurons in the order of the cores."""
        cut, cores = {}, []
        for population in self.demand.populations:
            sizes = [solver.value(self.neurons[population.name, j]) for j in range(self.cores)]
            cut[population.name] = np.cumsum([0, *(s for s in sizes if s)]).astype(np.int64)
        for j in range(self.cores):
            names = [p.name for p in self.demand.populations]
            here = tuple(n for n in names if solver.value(self.neurons[n, j]))
            if here:
                cores.append(here)
        return cut, tuple(cores)
