"""Reads friend trees by ROOT, in a process of its own: ``python with_root.py CASES.json`` prints what it found."""

import json
import sys
from pathlib import Path
from typing import Any

JOIN = """
#include <ROOT/RNTupleProcessor.hxx>
#include <vector>
std::vector<double> joined(const char* main, const char* beside) {
  using namespace ROOT::Experimental;
  auto processor = RNTupleProcessor::CreateJoin({"Events", main}, {"Friends", beside}, {});
  auto own = processor->RequestField<std::uint64_t>("event");
  auto other = processor->RequestField<std::int64_t>("Friends.event");
  auto score = processor->RequestField<float>("Friends.score_signal");
  double entries = 0, different = 0, sum = 0;
  for (auto entry : *processor) {
    (void)entry;
    ++entries;
    different += *own != std::uint64_t(*other);
    sum += *score;
  }
  return {entries, different, sum};
}
"""


def of_frame(frame: Any) -> list[float]:
    """Count entries, and those where the friend is of another event; sum up the scores."""
    entries, different = frame.Count(), frame.Filter("event != (ULong64_t)Friends.event").Count()
    total = frame.Define("one_score", "(double)Friends.score_signal").Sum("one_score")
    return [entries.GetValue(), different.GetValue(), total.GetValue()]


def main() -> None:
    """Read every case in the ways that ROOT has."""
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import ROOT

    found: dict[str, list[float]] = {}
    for name, (events, friends) in cases["trees"].items():
        opened = ROOT.TFile.Open(events)
        tree = opened.Get("Events")
        tree.AddFriend("Friends", friends)
        found[name] = of_frame(ROOT.RDataFrame(tree))
    chain, beside = ROOT.TChain("Events"), ROOT.TChain("Friends")
    for events, friends in cases["chain"]:
        chain.Add(events)
        beside.Add(friends)
    chain.AddFriend(beside)
    found["chain"] = of_frame(ROOT.RDataFrame(chain))
    names = ROOT.std.vector["std::string"]
    spec = ROOT.RDF.Experimental.RDatasetSpec()
    files = [events for events, _ in cases["chain"]]
    spec.AddSample(ROOT.RDF.Experimental.RSample("all", "Events", names(files)))
    spec.WithGlobalFriends("Friends", names([friends for _, friends in cases["chain"]]), "Friends")
    found["spec"] = of_frame(ROOT.RDataFrame(spec))
    ROOT.gInterpreter.Declare(JOIN)
    found["joined"] = list(ROOT.joined(*cases["joined"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
