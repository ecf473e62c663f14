"""Write ``divided.root`` and its friends beside this script: ``pip install --pre root``, then run it here.

Branches that hold several numbers, or lists of lists, in each entry, as only ROOT writes them (made with ROOT 6.40).
What they hold follows from the entry: see ``tests/rootdata/io/test_divided.py``.
"""

# ruff: noqa: E501 - C++ in as few lines as it takes

import tempfile
from pathlib import Path

import ROOT

CODE = r"""
#include <bitset>
#include <set>
#include <vector>
#include <TArrayF.h>
#include <TArrayI.h>
#include <TFile.h>
#include <TLorentzVector.h>
#include <TTree.h>

struct Leaves { float pt, eta; int q; };
struct Nested { float m[2]; int k[3]; unsigned char c; };

void divided()
{
   TTree *t = new TTree("t", "");
   int nJet, i; float met, pt[9], tau[9][5], m[2][3], grid[9][2][3]; Double32_t few[9][2];
   Leaves jet; Nested nested; TLorentzVector p4; std::vector<TLorentzVector> p4s; Hit hit; std::vector<Hit> hits;
   std::set<int> ids; std::bitset<5> bits; TArrayF af; TArrayI ai; std::vector<std::vector<float>> vv; std::vector<std::vector<int>> links;
   std::vector<int> jetIdx; std::vector<std::set<short>> sets; std::vector<std::vector<std::vector<float>>> deep; std::vector<std::string> words;
   t->Branch("i", &i, "i/I", 800); t->Branch("nJet", &nJet, "nJet/I", 800); t->Branch("Jet_pt", pt, "Jet_pt[nJet]/F", 800);
   t->Branch("Jet_tau", tau, "Jet_tau[nJet][5]/F", 800); t->Branch("MET", &met, "MET/F", 800);
   t->Branch("m", m, "m[2][3]/F", 800); t->Branch("grid", grid, "grid[nJet][2][3]/F", 800); t->Branch("few", few, "few[nJet][2]/d", 800);
   t->Branch("jet", &jet, "pt/F:eta/F:q/I", 800); t->Branch("nested", &nested, "m[2]/F:k[3]/I:c/b", 800);
   t->Branch("p4", &p4, 800, 0); t->Branch("p4s", &p4s, 800, 0); t->Branch("hit", &hit, 800, 0); t->Branch("hits", &hits, 800, 0);
   t->Branch("split", &hit, 800, 99); t->Branch("splits", &hits, 800, 99);
   t->Branch("ids", &ids, 800); t->Branch("bits", &bits, 800); t->Branch("af", &af, 800, 0); t->Branch("ai", &ai, 800, 0);
   t->Branch("vv", &vv, 800); t->Branch("links", &links, 800); t->Branch("jetIdx", &jetIdx, 800); t->Branch("sets", &sets, 800);
   t->Branch("deep", &deep, 800); t->Branch("words", &words, 800);
   for (i = 0; i < 60; ++i) {
      nJet = i % 4; met = i / 2.f; jet = {i + 0.f, -i + 0.f, i % 3 - 1}; nested = {{i + .25f, i + .5f}, {i, -i, 2 * i}, (unsigned char)(i % 7)};
      p4.SetPxPyPzE(i, -i, 2 * i, 3 * i); hit = {i / 4.f, i, {i + .5f, -i + .5f}};
      for (int a = 0; a < 2; ++a) for (int b = 0; b < 3; ++b) m[a][b] = 100 * i + 10 * a + b;
      for (int k = 0; k < nJet; ++k) {
         pt[k] = 10 * i + k;
         for (int c = 0; c < 5; ++c) tau[k][c] = 100 * i + 10 * k + c;
         for (int a = 0; a < 2; ++a) { few[k][a] = i + k + a; for (int b = 0; b < 3; ++b) grid[k][a][b] = 1000 * i + 100 * k + 10 * a + b; }
      }
      p4s.clear(); hits.clear(); ids.clear(); vv.clear(); links.clear(); jetIdx.clear(); sets.clear(); deep.clear(); words.clear();
      bits = std::bitset<5>(i % 32); af.Set(i % 3); ai.Set(i % 4);
      for (int k = 0; k < i % 3; ++k) { af[k] = i + k / 2.f; p4s.emplace_back(i, k, 0, i + k); hits.push_back({i + k + 0.f, k, {k + .5f, i + .5f}}); ids.insert(10 * i + k); }
      for (int k = 0; k < i % 4; ++k) {
         ai[k] = i - k; jetIdx.push_back((i + k) % 5 - 1); words.push_back("w");
         vv.emplace_back(); links.emplace_back(); sets.emplace_back(); deep.emplace_back(k, std::vector<float>(1, i));
         for (int l = 0; l < (i + k) % 3; ++l) { vv[k].push_back(100 * i + 10 * k + l); links[k].push_back(l - 1); sets[k].insert(i + l); }
      }
      t->Fill();
   }
   t->Write();
}

// The same path twice, as Delphes writes: branches of two collections, each with `fUniqueID`; and a branch that is there twice.
void twice()
{
   TTree t("twice", ""); float x, y; int i;
   t.Branch("i", &i); t.Branch("x", &x); TBranch *again = t.Branch("y", &y); again->SetName("x"); again->SetTitle("x/F");
   for (i = 0; i < 20; ++i) { x = i; y = 100 + i; t.Fill(); }
   t.Write();
}

void friends()
{
   int i; float x, w, v, z; std::vector<float> zs;
   for (auto name : {"friends_extra.root", "not_there.root"}) {
      TFile extra(name, "RECREATE", "", 101);
      TTree e("extra", ""); e.Branch("z", &z); e.Branch("x", &x); e.Branch("zs", &zs);
      for (i = 0; i < 60; ++i) { z = 10 * i; x = -i; zs.assign(i % 3, i); e.Fill(); }
      e.Write();
   }
   TFile events("friends.root", "RECREATE", "", 101);
   TTree t("Events", ""), near("near", ""), few("few", "");
   t.Branch("i", &i); t.Branch("x", &x); near.Branch("w", &w); few.Branch("v", &v);
   for (i = 0; i < 60; ++i) { x = i; w = 2 * i; t.Fill(); near.Fill(); if (i < 50) { v = i; few.Fill(); } }
   near.Write(); few.Write();
   t.AddFriend("extra", "friends_extra.root"); t.AddFriend("near"); t.AddFriend("few");
   t.AddFriend("gone = extra", "not_there.root"); t.AddFriend("other = extra", "friends_extra.root");
   t.Write();
}

// A friend that ROOT finds by an index, whatever its order.
void indexed()
{
   TFile file("indexed.root", "RECREATE", "", 101);
   TTree t("indexed", ""); int i; float y;
   t.Branch("i", &i); t.Branch("y", &y);
   for (int k = 59; k >= 0; --k) { i = k; y = 3 * k; t.Fill(); }
   t.BuildIndex("i"); t.Write();
}

void write()
{
   TFile file("divided.root", "RECREATE", "", 101);
   divided(); twice();
   file.Close();
   friends();
   indexed();
}
"""

HIT = "#pragma once\nstruct Hit { float x; int id; float cov[2]; };\n"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hit.h").write_text(HIT)
        ROOT.gInterpreter.AddIncludePath(folder)
        ROOT.gSystem.SetBuildDir(folder)
        lists = [
            "vector<vector<int> >",
            "vector<vector<float> >",
            "vector<set<short> >",
            "vector<vector<vector<float> > >",
        ]
        ROOT.gInterpreter.GenerateDictionary(
            "Hit;vector<Hit>;bitset<5>;vector<TLorentzVector>;" + ";".join(lists),
            "hit.h;vector;set;bitset;TLorentzVector.h",
        )
        ROOT.gInterpreter.Declare('#include "hit.h"\n' + CODE)
        ROOT.write()
    Path("not_there.root").unlink()
    for name in ("divided.root", "friends.root", "friends_extra.root", "indexed.root"):
        print(name, Path(name).stat().st_size)
