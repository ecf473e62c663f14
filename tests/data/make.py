"""Write the files beside this script, in layouts that only ROOT writes: ``pip install --pre root``, then run it here.

Made with ROOT 6.40. What they hold follows from the entry: see ``tests/rootdata/io/test_files_of_root.py``.
"""

# ruff: noqa: E501 - C++ in as few lines as it takes

import os
from pathlib import Path

import ROOT

CODE = r"""
#include <unistd.h>
#include <array>
#include <atomic>
#include <bitset>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>
#include <ROOT/RField.hxx>
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriteOptions.hxx>
#include <ROOT/RNTupleWriter.hxx>
#include <TClonesArray.h>
#include <TFile.h>
#include <TLorentzVector.h>
#include <TRefArray.h>
#include <TTree.h>

// Flat numbers, arrays counted by `n` and `nc`, and vectors; baskets of a few entries.
void plain(const char *name, int entries, int bytes, bool bare, int circular, int save)
{
   TTree *t = new TTree(name, name);
   if (bare) { ROOT::TIOFeatures f; f.Set("kGenerateOffsetMap"); t->SetIOFeatures(f); }
   if (circular) t->SetCircular(circular);
   int n, i; unsigned char nc; float v[9]; double w[9]; int iv[9]; short sv[9]; bool bv[9], flag; Long64_t lv[9];
   float pairs[9][2], fixed[3]; ULong64_t big; Double32_t d, ranged, few, dfixed[3], vd[9]; Float16_t half, hranged;
   std::vector<float> vf; std::vector<bool> vb; std::vector<double> vdouble; std::vector<unsigned char> vu; std::vector<short> vs;
   t->Branch("n", &n, "n/I", bytes); t->Branch("nc", &nc, "nc/b", bytes); t->Branch("v", v, "v[n]/F", bytes);
   t->Branch("w", w, "w[n]/D", bytes); t->Branch("iv", iv, "iv[nc]/I", bytes); t->Branch("sv", sv, "sv[n]/S", bytes);
   t->Branch("bv", bv, "bv[n]/O", bytes); t->Branch("lv", lv, "lv[n]/L", bytes);
   t->Branch("pairs", pairs, "pairs[n][2]/F", bytes); t->Branch("fixed", fixed, "fixed[3]/F", bytes);
   t->Branch("i", &i, "i/I", bytes); t->Branch("flag", &flag, "flag/O", bytes); t->Branch("big", &big, "big/l", bytes);
   t->Branch("d", &d, "d/d", bytes); t->Branch("ranged", &ranged, "ranged/d[0,1000,20]", bytes);
   t->Branch("half", &half, "half/f", bytes); t->Branch("hranged", &hranged, "hranged/f[0,1000,20]", bytes);
   t->Branch("few", &few, "few/d[0,0,14]", bytes); t->Branch("dfixed", dfixed, "dfixed[3]/d", bytes);
   t->Branch("vd", vd, "vd[n]/d", bytes); t->Branch("vranged", vd, "vranged[n]/d[0,1000,16]", bytes);
   t->Branch("franged", dfixed, "franged[3]/d[0,1000,16]", bytes);
   t->Branch("vf", &vf, bytes); t->Branch("vb", &vb, bytes); t->Branch("vdouble", &vdouble, bytes);
   t->Branch("vu", &vu, bytes); t->Branch("vs", &vs, bytes);
   for (i = 0; i < entries; ++i) {
      n = i % 6; nc = i % 4; flag = i % 3 == 0; big = 1000000000000ull * i; d = i * .5; ranged = i; half = i * .25; hranged = i; few = i * .5;
      for (int k = 0; k < n; ++k) {
         v[k] = 100 * i + k; w[k] = i + k / 8.; sv[k] = i - k; bv[k] = (i + k) % 2; lv[k] = -1000000000000ll * i + k;
         vd[k] = i + k; pairs[k][0] = i + k; pairs[k][1] = i - k;
      }
      for (int k = 0; k < nc; ++k) iv[k] = 10 * i + k;
      for (int k = 0; k < 3; ++k) dfixed[k] = fixed[k] = i + k / 4.;
      vf.clear(); vb.clear(); vdouble.clear(); vu.clear(); vs.clear();
      for (int k = 0; k < i % 5; ++k) {
         vf.push_back(i + k); vb.push_back((i + k) % 2); vdouble.push_back(i - k); vu.push_back(i + k); vs.push_back(-i - k);
      }
      t->Fill();
      if (save && i && i % save == 0) t->AutoSave("SaveSelf");
   }
   if (save) _exit(0);  // as a process that is killed
   t->Write();
}

// Branches that have fewer entries than their tree, and more; one that got another name.
void uneven()
{
   TTree t("uneven", ""); int i; float x, half, none, more;
   t.Branch("i", &i); t.Branch("x", &x);
   for (i = 0; i < 50; ++i) { x = 2 * i; t.Fill(); }
   t.Branch("half", &half);
   for (; i < 100; ++i) { x = 2 * i; half = i; t.Fill(); }
   t.Branch("none", &none);
   auto b = t.Branch("more", &more);
   for (int k = 0; k < 150; ++k) { more = k; b->Fill(); }
   t.GetBranch("x")->SetName("renamed");
   t.Write();
}

// A split array of objects: the array itself counts. Others refer to some of the objects.
void objects()
{
   TTree t("objects", ""); TClonesArray a("TLorentzVector"), b("TLorentzVector"), *pa = &a, *pb = &b; TRefArray refs;
   t.Branch("a", &pa, 1000, 1); t.Branch("b", &pb, 1000, 1);
   for (int i = 0; i < 60; ++i) {
      a.Clear(); b.Clear(); refs.Clear();
      for (int k = 0; k < i % 4; ++k) new (a[k]) TLorentzVector(i, k, 0, i + k);
      for (int k = 0; k < i % 3; ++k) { new (b[k]) TLorentzVector(i, k, 0, i - k); if (k) refs.Add(b[k]); }
      t.Fill();
   }
   t.Write();
}

using namespace ROOT;
template <typename T> std::shared_ptr<T> get(RNTupleWriter &w, const char *name) { return w.GetModel().GetDefaultEntry().GetPtr<T>(name); }

// Every type that can be added late. `first` is the entry at which they are.
void late(TFile &file, const char *name, int first, std::vector<int> ends)
{
   auto model = RNTupleModel::Create();
   auto i_ = model->MakeField<int>("i");
   auto w = RNTupleWriter::Append(std::move(model), name, file);
   for (int i = 0; i < 120; ++i) {
      *i_ = i;
      if (i == first) {
         auto u = w->CreateModelUpdater(); u->BeginUpdate();
         u->MakeField<float>("f"); u->MakeField<double>("d"); u->MakeField<bool>("b"); u->MakeField<std::int8_t>("i8");
         u->MakeField<std::uint8_t>("u8"); u->MakeField<std::int16_t>("i16"); u->MakeField<std::uint16_t>("u16");
         u->MakeField<std::int32_t>("i32"); u->MakeField<std::uint32_t>("u32"); u->MakeField<std::int64_t>("i64");
         u->MakeField<std::uint64_t>("u64"); u->MakeField<char>("c"); u->MakeField<std::byte>("byte");
         u->MakeField<std::array<float, 3>>("af"); u->MakeField<std::array<bool, 3>>("ab");
         u->MakeField<std::vector<float>>("vf"); u->MakeField<std::vector<bool>>("vb"); u->MakeField<std::vector<std::int16_t>>("vi");
         u->MakeField<RVec<double>>("rv"); u->MakeField<std::bitset<10>>("bits"); u->MakeField<std::atomic<int>>("atomic");
         u->MakeField<std::pair<float, std::array<int, 2>>>("p"); u->MakeField<std::vector<std::pair<float, int>>>("vp");
         u->MakeField<std::set<int>>("set"); u->MakeField<std::string>("s"); u->MakeField<std::optional<float>>("o");
         u->MakeField<std::vector<std::vector<float>>>("vv"); u->MakeField<std::variant<float, int>>("either");
         auto cut = std::make_unique<RField<float>>("cut"); cut->SetTruncated(16); u->AddField(std::move(cut));
         auto quant = std::make_unique<RField<float>>("quant"); quant->SetQuantized(20, {0, 200}); u->AddField(std::move(quant));
         auto half = std::make_unique<RField<float>>("half"); half->SetHalfPrecision(); u->AddField(std::move(half));
         u->AddProjectedField(std::make_unique<RField<RNTupleCardinality<std::uint32_t>>>("nvf"), [](const std::string &) { return "vf"; });
         u->CommitUpdate();
      }
      if (i >= first) {
         *get<float>(*w, "f") = 2 * i; *get<double>(*w, "d") = i / 4.; *get<bool>(*w, "b") = i % 3 == 0; *get<std::int8_t>(*w, "i8") = -i;
         *get<std::uint8_t>(*w, "u8") = i; *get<std::int16_t>(*w, "i16") = -i; *get<std::uint16_t>(*w, "u16") = i;
         *get<std::int32_t>(*w, "i32") = -i; *get<std::uint32_t>(*w, "u32") = i; *get<std::int64_t>(*w, "i64") = -1000000000000ll * i;
         *get<std::uint64_t>(*w, "u64") = 1000000000000ull * i; *get<char>(*w, "c") = i; *get<std::byte>(*w, "byte") = std::byte(i);
         *get<std::array<float, 3>>(*w, "af") = {i + 0.f, i + .25f, i + .5f}; *get<std::array<bool, 3>>(*w, "ab") = {i % 2 == 0, i % 3 == 0, i % 5 == 0};
         get<std::vector<float>>(*w, "vf")->assign(i % 4, i); get<std::vector<bool>>(*w, "vb")->assign(i % 3, i % 2);
         get<std::vector<std::int16_t>>(*w, "vi")->assign(i % 5, -i); get<RVec<double>>(*w, "rv")->assign(i % 2, i);
         *get<std::bitset<10>>(*w, "bits") = std::bitset<10>(i); *get<std::atomic<int>>(*w, "atomic") = i;
         *get<std::pair<float, std::array<int, 2>>>(*w, "p") = {i + 0.f, {i, -i}};
         get<std::vector<std::pair<float, int>>>(*w, "vp")->assign(i % 3, {i + 0.f, -i});
         auto set = get<std::set<int>>(*w, "set"); set->clear(); for (int k = 0; k < i % 3; ++k) set->insert(i + k);
         *get<float>(*w, "cut") = i; *get<float>(*w, "quant") = i; *get<float>(*w, "half") = i;
      }
      w->Fill();
      for (int end : ends) if (i + 1 == end) w->CommitCluster();
   }
}

// A field that is stored in another way in every second cluster.
void ways(TFile &file)
{
   auto model = RNTupleModel::Create();
   auto add = [&](auto field, RFieldBase::ColumnRepresentation_t one, RFieldBase::ColumnRepresentation_t other) {
      field->SetColumnRepresentatives({one, other});
      model->AddField(std::move(field));
   };
   add(std::make_unique<RField<float>>("f"), {ENTupleColumnType::kSplitReal32}, {ENTupleColumnType::kReal16});
   add(std::make_unique<RField<int>>("i32"), {ENTupleColumnType::kInt32}, {ENTupleColumnType::kSplitInt32});
   add(std::make_unique<RField<std::vector<double>>>("v"), {ENTupleColumnType::kSplitIndex64}, {ENTupleColumnType::kIndex32});
   auto w = RNTupleWriter::Append(std::move(model), "ways", file);
   for (int i = 0; i < 100; ++i) {
      *get<float>(*w, "f") = i; *get<int>(*w, "i32") = -i; get<std::vector<double>>(*w, "v")->assign(i % 4, i);
      w->Fill();
      if (i % 25 == 24) {
         w->CommitCluster();
         for (auto name : {"f", "i32", "v"})
            Internal::RFieldRepresentationModifier::SetPrimaryColumnRepresentation(
               const_cast<RFieldBase &>(w->GetModel().GetConstField(name)), (i / 25 + 1) % 2);
      }
   }
}

void write()
{
   TFile file("trees.root", "RECREATE", "", 101);
   plain("plain", 120, 600, false, 0, 0); plain("bare", 120, 600, true, 0, 0); plain("circular", 250, 600, false, 100, 0);
   uneven(); objects();
   file.Close();
   TFile ntuples("ntuples.root", "RECREATE", "", 505);
   late(ntuples, "between", 60, {30, 60, 90}); late(ntuples, "inside", 50, {30, 90}); late(ntuples, "alone", 119, {});
   ways(ntuples);
   ntuples.Close();
}

void leave_open()
{
   new TFile("unclosed.root", "RECREATE", "", 101);
   plain("plain", 120, 600, false, 0, 45);
}
"""

if __name__ == "__main__":
    ROOT.gInterpreter.Declare(CODE)
    ROOT.write()
    if not os.fork():
        ROOT.leave_open()
    os.wait()
    for name in ("trees.root", "ntuples.root", "unclosed.root"):
        print(name, Path(name).stat().st_size)
