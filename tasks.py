"""What Invoke finds: the tasks of `hyraxvm/tasks/`.  `./inv` lists them."""

from __future__ import annotations

from invoke import Collection

from hyraxvm.tasks import building, releasing, showing, upkeep, using

ns = Collection(
    building.build,
    building.test,
    building.boot_test,
    building.pin,
    showing.list_,
    showing.verify,
    showing.render,
    using.run,
    using.try_,
    using.kit,
    using.settings,
    using.download,
    releasing.release,
    releasing.nightly,
    releasing.matrix,
    releasing.publish,
    releasing.withdraw,
    upkeep.doctor,
    upkeep.lint,
    upkeep.bench,
    upkeep.clean,
)
