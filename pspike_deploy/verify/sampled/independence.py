"""T3: are the draws independent of each other?

All tests look at residuals e = x - q that are not divided by their standard deviation, because
divided ones have heavy tails where q is small. Where T2a or T2b rejects, give them the site with
``calibration.recalibrated`` probabilities: a wrong mean would show up as dependence.
"""

from pspike_deploy.verify.sampled.across_sites import sites
from pspike_deploy.verify.sampled.counts import dispersion, trials
from pspike_deploy.verify.sampled.pairs import draw_order, pairs
from pspike_deploy.verify.sampled.serial import serial

__all__ = ["dispersion", "draw_order", "pairs", "serial", "sites", "trials"]
