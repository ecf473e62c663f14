"""Write ``awkward.root`` and ``fields.root``, of which many branches can't be used: `pip install --pre root`, then run.

Entry i of every branch that can be used holds i, or i % 3 objects of i, if nothing else is said.
"""

from __future__ import annotations

from pathlib import Path

import ROOT

TREES = r"""
#include <map>
#include <string>
#include <vector>
#include <TChain.h>
#include <TClonesArray.h>
#include <TFile.h>
#include <TLorentzVector.h>
#include <TNtupleD.h>
#include <TObjString.h>
#include <TParameter.h>
#include <TTree.h>

void write_events() {
  TTree t("Events", "");
  float x, tau[3][2], fix[3], mat[2][2];
  int n;
  struct { int n; float f; } pair;
  unsigned long long u;
  long long l;
  bool flag;
  char text[8];
  Double32_t d, dr, dn[3], dx[3];
  Float16_t f, fr, fn[3];
  std::vector<float> v;
  std::vector<double> w;
  std::vector<std::vector<float>> vv;
  std::vector<std::string> names;
  std::map<std::string, float> m;
  std::string s;
  TLorentzVector p;
  TClonesArray a("TLorentzVector"), *pa = &a;
  TObjString o;
  t.Branch("x", &x); t.Branch("n", &n); t.Branch("v", &v); t.Branch("w", &w); t.Branch("flag", &flag);
  t.Branch("fix", fix, "fix[3]/F"); t.Branch("u", &u, "u/l"); t.Branch("l", &l, "l/L");
  t.Branch("tau", tau, "tau[n][2]/F"); t.Branch("mat", mat, "mat[2][2]/F"); t.Branch("text", text, "text/C");
  t.Branch("pair", &pair, "n/I:f/F");
  t.Branch("d", &d, "d/d"); t.Branch("dr", &dr, "dr/d[0,100,16]");
  t.Branch("dn", dn, "dn[n]/d[0,100,16]"); t.Branch("dx", dx, "dx[3]/d[0,100,16]");
  t.Branch("f", &f, "f/f"); t.Branch("fr", &fr, "fr/f[0,100,16]"); t.Branch("fn", fn, "fn[n]/f");
  t.Branch("vv", &vv); t.Branch("names", &names); t.Branch("m", &m); t.Branch("s", &s);
  t.Branch("p.", &p); t.Branch("p0", &p, 32000, 0); t.Branch("a", &pa); t.Branch("o", &o);
  for (int i = 0; i < 30; i++) {
    x = d = dr = f = fr = pair.f = i; n = pair.n = i % 3; flag = i % 2;
    u = 18446744073709551615ull - i; l = i % 2 ? 9223372036854775807ll : -9223372036854775807ll - 1;
    snprintf(text, 8, "%d", i); s = text; names.assign(n, s); m = {{s, i}}; vv.assign(n, {1.f * i});
    v.assign(n, i); w.assign(n, i); p.SetPxPyPzE(i, i, i, i); o.SetString(text); a.Clear();
    for (int k = 0; k < 3; k++) { fix[k] = dx[k] = dn[k] = fn[k] = tau[k][0] = tau[k][1] = i; }
    for (int k = 0; k < n; k++) ((TLorentzVector*)a.ConstructedAt(k))->SetPxPyPzE(i, i, i, i);
    mat[0][0] = mat[0][1] = mat[1][0] = mat[1][1] = i;
    t.Fill();
  }
  t.Write();
}

void write_twice() {  // x is i, and again -i; below the second P lies P.fVal, which is -i
  TTree t("twice", "");
  float x, y, z;
  TLorentzVector p;
  TParameter<double> o;
  t.Branch("x", &x); t.Branch("x", &y); t.Branch("z", &z); t.Branch("P.", &p); t.Branch("P.", &o);
  for (int i = 0; i < 30; i++) { x = z = i; y = -i; o.SetVal(-i); t.Fill(); }
  t.Write();
}

void write_counted() {  // the lists of r are counted by h.n, which is i % 2, and not by n, which is i
  TTree t("counted", "");
  struct { int n; float f; } h;
  int n;
  float r[2];
  t.Branch("h", &h, "n/I:f/F"); t.Branch("r", r, "r[n]/F"); t.Branch("n", &n, "n/I");
  for (int i = 0; i < 30; i++) { h.n = i % 2; h.f = n = i; r[0] = r[1] = i; t.Fill(); }
  t.Write();
}

void write_others(TFile& file) {
  float x;
  std::vector<float> v;
  { TTree t("short", "");  // of late there are 10 entries
    t.Branch("x", &x); t.Branch("late", &x);
    for (int i = 0; i < 30; i++) { x = i; t.GetBranch("x")->Fill(); if (i < 10) t.GetBranch("late")->Fill(); }
    t.SetEntries(30); t.Write(); }
  { TTree t("cycles", ""); t.Branch("x", &x); x = 0; t.Fill(); t.Write(); x = 1; t.Fill(); t.Write(); }
  { TTree t("memory", ""); t.SetDirectory(nullptr); t.Branch("x", &x); t.Branch("v", &v);  // baskets in the tree itself
    for (int i = 0; i < 30; i++) { x = i; v.assign(i % 3, i); t.Fill(); } file.WriteTObject(&t, "memory"); }
  { TTree t("bare", ""); t.Write(); }
  { TTree t("number", ""); t.SetEntries(30); t.Write(); }  // without branches
  { TTree t("empty", ""); t.Branch("x", &x); t.Write(); }
  { TNtupleD t("tuple", "", "x:y"); for (int i = 0; i < 30; i++) t.Fill(i, i); t.Write(); }
  { TChain c("Events"); c.Add("a.root"); c.Write("chain"); }
  file.mkdir("folder/deep")->cd();
  { TTree t("Events", ""); t.Branch("x", &x); for (int i = 0; i < 30; i++) { x = i; t.Fill(); } t.Write(); }
  file.cd();
}

void write_trees(const char* path) {
  TFile file(path, "RECREATE", "", 505);
  write_events(); write_twice(); write_counted(); write_others(file);
}
"""

FIELDS = r"""
#include <array>
#include <optional>
#include <variant>
#include <ROOT/RField.hxx>
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriter.hxx>

void write_fields(const char* path) {
  using namespace ROOT;
  auto model = RNTupleModel::Create();
  auto x = model->MakeField<float>("x");
  auto v = model->MakeField<std::vector<float>>("v");
  auto fix = model->MakeField<std::array<float, 3>>("fix");
  auto u = model->MakeField<std::uint64_t>("u");
  { auto f = std::make_unique<RField<float>>("half"); f->SetHalfPrecision(); model->AddField(std::move(f)); }
  auto half = model->GetDefaultEntry().GetPtr<float>("half");
  model->MakeField<std::optional<float>>("optional");
  model->MakeField<std::variant<int, float>>("variant");
  auto vv = model->MakeField<std::vector<std::vector<float>>>("vv");
  model->MakeField<std::vector<std::array<float, 2>>>("tau");
  model->MakeField<std::array<std::array<float, 2>, 2>>("mat");
  model->MakeField<std::string>("s");
  auto pair = model->MakeField<std::pair<int, float>>("pair");
  model->AddField(std::make_unique<RStreamerField>("streamed", "TLorentzVector"));
  RNTupleWriteOptions options;
  options.SetCompression(505);
  auto writer = RNTupleWriter::Recreate(std::move(model), "Events", path, options);
  auto fill = [&](int i) {
    *x = *half = i; v->assign(i % 3, i); vv->assign(i % 3, {1.f * i}); *fix = {1.f * i, 1.f * i, 1.f * i};
    *u = 18446744073709551615ull - i; *pair = {i, 1.f * i}; writer->Fill();
  };
  for (int i = 0; i < 15; i++) fill(i);
  writer->CommitCluster();
  auto updater = writer->CreateModelUpdater();
  updater->BeginUpdate();
  auto late = updater->MakeField<float>("late");  // 0 before
  updater->MakeField<std::optional<float>>("late_optional");
  updater->CommitUpdate();
  for (int i = 15; i < 30; i++) { *late = i; fill(i); }
}
"""


def main() -> None:
    """Write the files beside this one."""
    here = Path(__file__).parent
    for code in (TREES, FIELDS):
        assert ROOT.gInterpreter.Declare(code)
    ROOT.write_trees(str(here / "awkward.root"))
    ROOT.write_fields(str(here / "fields.root"))


if __name__ == "__main__":
    main()
