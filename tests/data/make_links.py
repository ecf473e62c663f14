"""Write ``links.root`` beside this script: ``pip install --pre root``, then run it here.

Lists of lists of links, as ATLAS' derivations have them: link l of list k of entry i has key 7 i + k, index 10 i + l.
"""

import tempfile
from pathlib import Path

import ROOT

LINK = """#pragma once
#include <vector>
struct ElementLinkBase { unsigned m_persKey = 0, m_persIndex = 0; };
template <class T> struct ElementLink : ElementLinkBase {};
struct Track {};
"""

CODE = """#include "link.h"
void write()
{
   TFile file("links.root", "RECREATE", "", 0);
   TTree t("t", ""); float x; std::vector<std::vector<ElementLink<Track>>> links;
   t.Branch("x", &x); t.Branch("Muons.trackLinks", &links, 800, 0);
   for (int i = 0; i < 60; ++i) {
      x = i; links.clear();
      for (int k = 0; k < i % 4; ++k) {
         links.emplace_back();
         for (int l = 0; l < (i + k) % 3; ++l) {
            links[k].emplace_back(); links[k][l].m_persKey = 7 * i + k; links[k][l].m_persIndex = 10 * i + l;
         }
      }
      t.Fill();
   }
   t.Write();
}
"""

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "link.h").write_text(LINK)
        ROOT.gInterpreter.AddIncludePath(folder)
        ROOT.gSystem.SetBuildDir(folder)
        link = "ElementLink<Track>"
        ROOT.gInterpreter.GenerateDictionary(
            f"Track;ElementLinkBase;{link};vector<{link} >;vector<vector<{link} > >", "link.h;vector"
        )
        ROOT.gInterpreter.Declare(CODE)
        ROOT.write()
    print("links.root", Path("links.root").stat().st_size)
