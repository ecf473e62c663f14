"""How far a training got, by its trainer's own count, and which place belongs to which fit."""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

from rootdata.errors import ResumeError
from rootdata.loading.position import Cursor, cursor_of, place_in, state_of


class Fit:
    """How far a fit got: the place where it began, and how many batches were learnt from since.

    The trainer's count says that, whatever becomes of a batch on its way: converted, moved, put beside those of other
    loaders, or taken ahead of its time.

    Parameters
    ----------
    counts : of the trainer: batches that are ready, processed, ...
    start : where it began
    length : batches of an epoch
    """

    def __init__(self, counts: Any, start: Cursor, *, length: int) -> None:
        self.counts = counts
        self.start = start
        self.given = 0
        self._length = length
        self._before = int(counts.total.processed)
        # Going on at the end of an epoch, a trainer may take the first batch for an epoch of its own.
        self._goes_on = bool(counts.is_last_batch)

    @property
    def learnt(self) -> int:
        """Number of batches that were learnt from."""
        return max(0, min(int(self.counts.total.processed) - self._before, self.given))

    @property
    def ahead(self) -> int:
        """Number of batches that were given, and wait for their turn."""
        current = self.counts.current
        return self.given - self.learnt - int(current.ready - current.processed)

    def after(self, batches: int) -> Cursor:
        """Return the place after so many batches."""
        epochs, batch = divmod(self.start.batch + batches, self._length)
        return Cursor(self.start.epoch + epochs, batch)

    def place(self) -> Cursor:
        """Return the place after what was learnt from; the next epoch, where the trainer has left one early."""
        current = self.counts.current
        is_over = self.counts.is_last_batch and current.ready == current.processed and not self.ahead
        return self.next_epoch() if is_over and self.learnt else self.after(self.learnt)

    def next_epoch(self) -> Cursor:
        """Return the place at which the trainer's next epoch begins."""
        place = self.after(self.learnt)
        return place if self._goes_on else _whole(place)


@dataclasses.dataclass(frozen=True, slots=True)
class _Loaded:
    """A place that was loaded, and for whom.

    Parameters
    ----------
    state : as :meth:`Progress.state` gave it
    trainer, path : who loaded it, from which checkpoint; no trainer where it was loaded by hand, for the next fit
    """

    state: dict[str, Any]
    trainer: weakref.ref[Any] | None = None
    path: Any = None

    def serves(self, trainer: Any) -> bool:
        if self.trainer is None:
            return True
        return trainer is not None and bool(trainer.ckpt_path == self.path) and self.trainer() is trainer


class Progress:
    """Where the trainings of one data module stand, one after another, in the order of events.

    A fit begins at the place that was loaded for it, or else with the next whole epoch. What other runs load, and what
    a fit loads that gives no batch, leaves no trace. A copy stands at the same place, with no fit under way.
    """

    def __init__(self) -> None:
        self._stood = Cursor()  # at the end of the last fit
        self._fit: Fit | None = None  # the one under way, or the last one
        self._loaded: _Loaded | None = None
        self._identity: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        is_by_hand = self._loaded is not None and self._loaded.trainer is None
        loaded = self._loaded if is_by_hand else None
        return {"_stood": self.place(), "_fit": None, "_loaded": loaded, "_identity": self._identity}

    def place(self) -> Cursor:
        """Return the place after the last batch that was learnt from."""
        return self._stood if self._fit is None else self._fit.place()

    def state(self, trainer: Any) -> dict[str, Any]:
        """Return what a checkpoint holds: the place, and which events it is a place in."""
        loaded = self._loaded
        if loaded is not None and loaded.serves(trainer):  # and not yet used
            return {**loaded.state, "identity": loaded.state["identity"] or self._identity}
        if self._fit is not None and self._fit.ahead > 1:
            warnings.warn(
                f"{self._fit.given} training batches were given, {self._fit.learnt} learnt from; what stands between "
                "data module and trainer must give one batch for each that it takes, or the place in a checkpoint "
                "within an epoch is wrong",
                stacklevel=2,
            )
        return state_of(self.place(), self._identity)

    def load(self, state: Mapping[str, Any], trainer: Any) -> None:
        """Take a place out of a checkpoint; it is compared with the events when it is used.

        Parameters
        ----------
        state : as :meth:`state` gave it
        trainer : that fits now, and for which it is; without one it is for the next fit

        Raises
        ------
        ResumeError
            For a place of another version, or one that is not whole.
        """
        state, place = dict(state), place_in(state)
        if trainer is None:
            self._loaded = _Loaded(state)
            return
        if self._fit is not None:  # a tuner has tried something, and puts back what it found
            self._stood, self._fit = place, None
            if not place.batch:
                state["identity"] = {}  # it may have changed the size of batches
        self._loaded = _Loaded(state, weakref.ref(trainer), trainer.ckpt_path)

    def end(self) -> None:
        """Note that what was under way is over, and another fit comes."""
        self._stood, self._fit = _whole(self.place()), None

    def check(self, trainer: Any, identity: dict[str, Any]) -> None:
        """Refuse to go on in other events than those that the loaded place is in.

        Raises
        ------
        ResumeError
            With the first difference.
        """
        if self._loaded is not None and self._loaded.serves(trainer):
            cursor_of(self._loaded.state, identity)
        if self._fit is None:
            self._identity = identity

    def begin(self, trainer: Any, identity: dict[str, Any], *, length: int) -> tuple[Cursor, Fit]:
        """Begin to iterate over the training events.

        Parameters
        ----------
        trainer : that fits now; its counts of batches tell where the epoch stands
        identity : of the events
        length : batches of an epoch

        Returns
        -------
        the first batch, and what counts those that are given

        Raises
        ------
        ResumeError
            Where the trainer goes on from a checkpoint without a place, or with one in other events.
        """
        counts, fit = trainer.fit_loop.epoch_loop.batch_progress, self._fit
        is_idle = counts.current.ready == counts.current.processed
        if fit is None or fit.counts is not counts:
            start = self._first(trainer, identity)
        elif is_idle and not fit.learnt:  # what was begun was a look at what is there
            start = fit.start
        elif not counts.current.processed and (is_idle or fit.given == fit.learnt):  # reset for every epoch
            start = fit.next_epoch()
        else:  # within an epoch: again, beside a longer loader, or to have a look, which counts for nothing
            after = fit.after(fit.given)
            is_again = is_idle and not after.batch and not counts.is_last_batch
            return _whole(after), fit if is_again else Fit(counts, _whole(after), length=length)
        if start.batch >= length:  # what was left of the epoch is too small for these ranks, or cut by a limit
            start = _whole(start)
        self._fit, self._loaded, self._identity = Fit(counts, start, length=length), None, identity
        return start, self._fit

    def _first(self, trainer: Any, identity: dict[str, Any]) -> Cursor:
        """Return the place at which a fit begins."""
        if self._loaded is not None and self._loaded.serves(trainer):
            return cursor_of(self._loaded.state, identity)
        if trainer.ckpt_path:
            raise ResumeError(
                f"the checkpoint {trainer.ckpt_path} has no place in these training events: it was made with another "
                "class of data module, or with loaders alone; go on with those, or take the checkpoint's weights alone "
                "and start anew"
            )
        return _whole(self.place())


def _whole(cursor: Cursor) -> Cursor:
    """Return the first place from here on at which an epoch begins."""
    return Cursor(cursor.epoch + 1) if cursor.batch else cursor
