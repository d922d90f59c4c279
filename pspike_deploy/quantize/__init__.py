"""From a float graph to an integer graph: passes, ranges, formats.

A pass is a pure function ``graph, config -> graph``, registered by name in
:mod:`~pspike_deploy.quantize.passes`.
"""

from pspike_deploy._callable import make_callable

make_callable(__name__, "pspike_deploy.quantize.quantize")
