"""The scope ``mmcv_custom`` in MMEngine's registries, for configs inherited by ``_base_ = 'mmcv_custom::...'``."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DefaultScope, Registry

SCOPE = 'mmcv_custom'


class InheritedScope(Registry):
    """A registry without classes of its own, which looks in the config's default scope: mmdet or mmseg.

    MMEngine marks what a config inherits from another package with that package's scope and looks for its classes there
    only. Our configs use the classes of mmdet or mmseg, as their ``default_scope`` says.
    """

    def get(self, key: str) -> Any:
        """The class called ``key``, ``None`` if there is none."""
        # The newest scope is this one, set while MMEngine builds an inherited part; the config's own lies below it.
        scopes = [instance.scope_name for instance in DefaultScope._instance_dict.values()]
        default = next((scope for scope in reversed(scopes) if scope != SCOPE), 'mmengine')
        assert self.parent is not None
        with self.parent.switch_scope_and_registry(default) as registry:  # the root, where MMEngine knows no such scope
            return registry.get(key)
