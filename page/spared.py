"""What Gradio would do beside the page and nothing here needs: 69 MB of pandas, and a table of all calls after each one."""

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

# Its /monitoring, which is closed (routes.py), would have a data frame made of the last 10,000 calls at the end of
# each, in a thread that holds Python's lock
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)


class Later(ModuleType):
    """A module that is imported when somebody uses it. importlib's LazyLoader does so at the second `import` already."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_later(name: str) -> None:
    """Whoever imports this module from now on gets it when they first use it; nothing changes where it is there already."""
    if name not in sys.modules and (spec := importlib.util.find_spec(name)):
        module = sys.modules[name] = Later(name)
        module.__spec__, module.__file__ = spec, spec.origin  # `inspect` looks at every module's


import_later("pandas")  # Gradio's cache of functions, which the page does not use, asks for it
