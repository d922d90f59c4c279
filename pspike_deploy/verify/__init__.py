"""Does the integer network sample the same spikes in distribution, and if not, where?"""

from pspike_deploy._callable import make_callable

make_callable(__name__, "pspike_deploy.verify.verdict")
