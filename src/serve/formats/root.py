"""Events from ROOT files, and scores in one (see :mod:`serve.codec.rootfile`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rootdata.table import Table
from serve.codec import media
from serve.codec.schema import Schemas
from serve.formats.format import Format, Heading, Target, Writer
from serve.settings import Settings


class ROOT(Format):
    """A file of any size, with a TTree or an RNTuple."""

    content_type = media.ROOT
    is_file = True

    def tables(self, path: str, schemas: Schemas, *, options: Mapping[str, str], settings: Settings) -> Iterator[Table]:
        """Read the events of a file piece by piece.

        Parameters
        ----------
        path : of a ROOT file on this machine
        schemas : the branches that the model takes; others are not read
        options : ``tree`` is needed where the file holds several, none of which the model was trained on
        settings : with the limits of an event
        """
        from serve.codec import rootfile

        return rootfile.tables(path, schemas, tree=options.get("tree"), settings=settings)

    def writer(self, target: Target, heading: Heading) -> Writer:
        """Make what writes the scores of many events in constant memory."""
        from serve.codec import rootfile

        return rootfile.RootScoreWriter(target, heading.columns, regressions=heading.regressions)
