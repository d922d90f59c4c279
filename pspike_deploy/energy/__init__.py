"""Energy with provenance and ranges: activity of real runs, constants as data, time, estimate."""

from pspike_deploy._callable import make_callable

make_callable(__name__, "pspike_deploy.energy_result")
