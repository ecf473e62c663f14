"""The words by which formats name what must not be a feature, and those that only look like it.

Names are compared as phrases: ``TrackGenJetAK4_pt`` is "track gen jet ak 4 pt" (:func:`phrase_of`). An entry of a list
is a regular expression of whole words; it counts anywhere in a phrase unless ``^`` or ``$`` tie it to an end. What
stands in ``ordinary`` is taken out of a phrase first. A name that would be too common as a phrase stands in ``exact``,
with its capitals: `Ev` of DUNE, `Particle.PT` of Delphes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["truth", "label", "identifier", "weight", "index", "trigger"]

_KNOWN = r"PDG(?=[a-z])|PDF(?=[a-z])|PU(?=true|weight|sys|info)"
# "MC" that a lower-case word follows, as MClepton_px.
_AFTER_MC = (
    r"lepton|hadron|neutrino|boson|[bcq]?quark|photon|part|truth|gen|match|jet|mu|elec|tau|tr[au]|trk|hit|v|event|evt|"
    r"p|id|eta|flav|weight|mother|type|status|info|primary|origin"
)
_WORD = re.compile(rf"{_KNOWN}|MC(?={_AFTER_MC})|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The words of a format.

    Parameters
    ----------
    format : whose files
    source : where its names are explained
    truth : what only a simulation knows
    label : the answer itself
    identifier : where an event or an object comes from
    weight : of events, scale factors, cross sections
    index : places in other collections
    trigger : decisions of the trigger, and its objects
    exact : kind to a regular expression of whole names, as they are spelt
    ordinary : phrases that are none of it though they hold such a word
    """

    format: str
    source: str
    truth: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    identifier: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    trigger: tuple[str, ...] = ()
    exact: tuple[tuple[Kind, str], ...] = ()
    ordinary: tuple[str, ...] = ()


_OBJECT = (
    r"jets?|part(icle)?s?|met|ht|taus?|mu(on)?s?|el(e|ec|ectron)?s?|lep(ton)?s?|photons?|gamma|vtx|vertex|vertices|"
    r"higgs|tops?|nu|neutrinos?|quarks?|partons?|hadrons?|bosons?|ttbar|fat\w*|sub\w*|tr(ac)?ks?|hits?|clusters?|evt|"
    r"event"
)
_LETTER = "b|w|z|h"
_PROPERTY = (
    r"pt|eta|phi|mass|energy|p[xyz]|v[xyz]|id|pid|pdg(id)?|type|match(ed|ing)?|flav(ou?r)?|status|mother|parent|origin|"
    r"dr|idx|index|info|level|filt\w*|charge|label|process|errors?|primary"
)
_RUN = (
    r"run|event|evt|evnt|lumi|luminosity ?block|lumi ?(block|section)|ls|bx|bcid|bunch ?crossing|orbit|sub ?run|spill|"
    r"subevent|sub event|sample|dataset|process|file|entry"
)
_OWNER = (
    r"hit|track|trk|particle|part|cand|candidate|primary|object|event|evt|run|det|detector|frame|sample|process|proc|"
    r"file|dataset|job|spill"
)
_NUMBER = r"number|num|nr|no|id|nb"

_GENERAL = Vocabulary(
    format="any simulation",
    source="words that analyses of all experiments use",
    truth=(
        r"\w*truth\w*", r"true\w*", r"\w{0,6}(?<!cons)true", r"gen|gens|generators?|generated|genlevel|recogen",
        r"lhe\w*", r"genie\w*",
        rf"gen({_OBJECT}|{_PROPERTY}|{_LETTER})({_PROPERTY})?",
        r"(pt|eta|phi|mass|jet|met|lep|tau|mu|ele|id|match|dr|has|is)gen",
        rf"mc({_OBJECT}|{_PROPERTY}|truth|gen\w*|shwr\w*|tree)({_PROPERTY})?",
        r"mc|montecarlo|monte carlo|hep ?mc\w*|pythia\w*",
        rf"sims?|simulated|sim({_OBJECT}|{_PROPERTY})", r"geant\d?", r"partons?", r"parton(flav(ou?r)?|id|pt)",
        r"hadron ?(ghost ?)?flav(ou?r)?", r"ghost (b|c|h|w|z|t|partons?|taus?)( \w+)*", r"n? ?[bc] ?hadrons?( final)?",
        r"(jets?|subjets?|fatjet|ak \d+|quark|ghost|hadron|algo|phys) ?flav(ou?r)?( id| type| algo| phys)?$",
        r"^flav(ou?r)?$", r"(?<=\w )label( id)?$", r"^labels? \w+( \w+)*",
        r"(jet|parton|quark|hadron)flav(ou?r)?( id)?",
        r"is (phys )?(b|c|s|g|h|w|z|ud|uds|bb|cc|gbb|gcc|top|qcd|light|non bb|leptonic b|undefined)( c)?$",
        r"is ?(bkg|background)$", r"(primary|neutrino) (energy|zenith|azimuth|type|interaction)", r"mother \d$",
        r"hard (scatter\w*|process)", r"hardscatter\w*", r"is (last|first) copy\w*", r"status flags?",
        r"^pdg( ?id)?$", r"^pdgcode$",
        r"(grand ?)?(mother|parent|gparent|daughter|primary|ancestor) ?(pdg|pid|pdgid|type|status|flav\w*)( id)?",
        r"(grand|great grand|greatgrand|grandgrand)(mother|parent)( \w+)?",
        r"pt ?hat", r"q ?scale", r"alpha ?(qcd|qed)", r"x ?pdf( \d)?", r"scale pdf", r"pdf (id|x|xf)s?( \d)?",
        r"pdf ids?",
        r"born", r"n? ?pu (true|mean|truth)", r"n ?true ?(int|pu)\w*", r"^n ?(pu|pile ?up|interactions)$",
        r"num interactions",
        r"pu ?num ?interactions",
        r"is (pu|reco pu)$", r"is (non ?)?prompt$", r"non ?prompt$", r"is fake( \w+)?$",
        r"(electron|jet|photon|tau) fakes?$",
        r"back ?track(ed|ing)?( \w+)*", r"is (misidentified|wrong charge)", r"signal process( id)?",
        r"(?:\w+ )+is ?sig(nal)?$",
    ),
    label=(
        r"^(\w+ )*is ?sig(nal)?( new)?$", r"^signal$", r"^(true ?|truth ?)?label(s| \w+)*$",
        r"^class( id| label|id)?$", r"^target$",
    ),
    identifier=(
        rf"^(mc |random |f |i )?({_RUN})( ?({_NUMBER}))?( block)?$",
        rf"({_RUN}|experiment|channel) ?(number|num|nr|no)$",
        r"^(event|evt|info|header|hdr|event ?info|evt ?info) (run|sub ?run|event|evt|lumi|ls|bx)$",
        r"channel ?id$",
        r"\w*time ?stamp( \w+)*", r"(gps|unix|utc|event|evt) ?time( \w+)*", r"^index$", r"^ids?$", r"^uu?id$",
        r"^guid$", r"barcodes?", r"bcid$",
        r"^(proc|process|sample|dataset|production|experiment|fold|split)( ?(name|id|type))?$", r"^ds ?id$",
        rf"({_OWNER}) ?id$",
        r"f unique id", r"f bits", r"(^|track )key$", r"lumi ?block( num)?$",
        r"luminosity ?block",
        r"is (data|real data)$",
    ),
    weight=(
        r"\w*(?<!light)weights?", r"weights?(mc|pu|sf|gen|nom)\w*", r"\w*wgts?",
        r"(gen|evt|event|pu|mc|btag|lep|trig|x)? ?wt",
        r"scale ?factors?", r"(?<!\bis )(?<!\bn )sfs?",
        r"(b ?tag|lep|trig|mu|ele?|pu|jvt|id|iso|reco|tau|pho|photon)sf\w*", r"k ?fac(tor)?s?",
        r"(gen )?filt(er)? ?eff\w*", r"x ?sec(tion)?s?\w*", r"cross ?sections?( \w+)*",
        r"sum ?(of ?)?w(eights?)?( ?2)?", r"sumw\d?",
        r"pu ?(sys|syst)? ?(up|down|nom)$", r"(non ?)?pre ?firing \w+( \w+)*", r"s ?weights?",
        r"n?(sig|bkg|sgn|sgnl)? sw", r"^pot$",
    ),
    index=(
        r"\w*idx(s|g)?", r"\w*(index|indices|indexes)( \d+)?$", r"links?$", r"collection ?id$",
    ),
    trigger=(
        r"^n? ?trig\w*", r"pass ?(trig|hlt)\w*", r"\w*trig(ger)?s? ?match\w*", r"hlt( \d+)?", r"^lvl ?[12]",
    ),
    ordinary=(
        r"generics?", r"(deep|robust) ?flav(ou?r)?", r"deepflav(ou?r)?\w*",
        r"(spectral|refractive|photon|color|colour|asymmetry) ?index",
        r"(puppi|vertex|vtx|pv|track|trk|constituent|fit|hit|cluster|cell|amvf|charge) ?weights?( no lep| at vertex)?",
        r"(max|mean|min) weight ttva", r"outside signal cone", r"signal (probability|prob|cone|region|score)",
        r"(same|opposite|os|ss|lep|lepton|dilep|dilepton|ll|channel) flav(ou?r)?", r"(is|n) sf",
        r"mc (fit|method|sampling|dropout)", r"un ?true", r"tau weight",
    ),
)  # fmt: skip

VOCABULARIES = (
    _GENERAL,
    Vocabulary(
        format="CMS NanoAOD, to v15",
        source="https://cms-nanoaod-integration.web.cern.ch/autoDoc",
        truth=(
            r"htxs\w*", r"stxs\w*", r"^n? ?pileup (n|sum|pudensity|gpudensity|pthatmax)( \w+)*", r"g?pudensity",
            r"fiducial gen \w+",
            r"lhe \w+( \w+)*", r"ttbar id$", r"^gen model( \w+)*",
        ),
        weight=(r"lhe (reweighting|scale|pdf) weight", r"^(ps|lhe) ?weights?", r"^l ?1 ?pre ?firing( \w+)*"),
        trigger=(r"^n? ?l 1 (eg|et sum|jet|mu|tau)", r"^n? ?trig obj"),
        ordinary=(r"prompt mva", r"(medium|tight) prompt id", r"from lost track", r"(u|robust) ?par tak 4( \w+)*"),
    ),
    Vocabulary(
        format="CMS MiniAOD-like ntuples",
        source="https://twiki.cern.ch/twiki/bin/view/CMSPublic/WorkBookMiniAOD",
        truth=(
            r"(pruned|packed|slimmed) gen( \w+)*", r"add pileup info", r"pu ?info", r"gen ?particles?",
            r"\w*mc ?match\w*", r"match(ed)? ?(to )?(gen|mc)",
            r"gen ?match\w*", r"^n ?puint\w*", r"(muon|electron|tau)? ?sim (flavour|pdg|type|ext)( \w+)*",
        ),
        weight=(r"mc ?weights?", r"gen ?wt", r"pu ?wt"),
    ),
    Vocabulary(
        format="CMS TreeMaker",
        source="https://github.com/TreeMaker/TreeMaker",
        truth=(
            r"mad (ht|min)( \w+)*", r"num interactions", r"true num interactions", r"susy (lsp|mother) mass",
            r"signal parameters",
            r"is hv", r"pdf ids", r"gen tops?", r"n ?(hadronic|leptonic) ?w",
        ),
        identifier=(r"^(evt|lumi block|run) num$",),
        weight=(r"pu sys (up|down)", r"(pdf|ps|scale)? ?weights", r"non prefiring prob( \w+)*"),
        trigger=(r"^trigger (pass|prescales|version|objects)",),
    ),
    Vocabulary(
        format="ATLAS open data",
        source="https://opendata.atlas.cern/docs/data",
        truth=(r"\w*truth ?match\w*", r"(jet )?trueflav\w*"),
        identifier=(r"^channel number$",),
        weight=(
            r"scale ?factor( \w+)*", r"mc ?(event ?)?weights?",
            r"^(xsec|x section|corr xs|kfac|filteff|sum (of )?weights)$",
        ),
        trigger=(r"^trig [emptg]$", r"trig matched", r"^pass grl$", r"^has good vertex$"),
    ),
    Vocabulary(
        format="ATLAS PHYSLITE",
        source="https://atlas-physlite-content-opendata.web.cern.ch",
        truth=(
            r"hard scatter (particles|vertices|vertex)( \w+)*", r"born leptons", r"classifier particle( \w+)*",
            r"is jvt (hs|pu)", r"^hf ?(simple ?)?classification",
            r"h ?f (simple )?classification", r"gen filt( \w+)*", r"first eg mother( \w+)*",
            r"top heavy flavor filter flag",
            r"n? ?(truth|true)", r"pile up mixture( \w+)*",
        ),
        identifier=(
            r"mc (channel|event) number", r"random run number", r"bcid", r"event type bitmask",
            r"m (smk|l 1 psk|hltpsk)",
        ),
        index=(r"pers (key|index)", r"\w+ links?$", r"link col \w+"),
        trigger=(r"^x? ?trig (decision|conf|nav)", r"hlt ?nav( \w+)*"),
        ordinary=(r"nonprompt all",),
    ),
    Vocabulary(
        format="LHCb",
        source="https://lhcb.github.io/starterkit-lessons",
        truth=(r"true\w+( [xyze])?", r"bkg ?cat", r"mc (mother|gd|gmother|headid)( \w+)*", r"oscil"),
        identifier=(
            r"gps ?time", r"bc ?(id|type)$", r"odin ?tck", r"(l ?0 ?du|hlt \d|odin) ?tck", r"event in sequence",
            r"track key$", r"^polarity$",
        ),
        trigger=(
            r"(l ?0|hlt ?\d)\w*( \w+)* (decision|global|phys)( (tos|tis|dec))?", r"\w*decision (tos|tis|dec)$",
            r"(tos|tis)$", r"stripping( \w+)* decision", r"^(max )?routing bits$",
        ),
        exact=(("identifier", r"nCandidate|totCandidates"),),
        ordinary=(r"mc \d+ tune( v \d+)?", r"mcorr\w*", r"tag ?decision( \w+)*"),
    ),
    Vocabulary(
        format="Belle II",
        source="https://software.belle2.org, the variables of basf2",
        truth=(
            r"n mc matches", r"is (extended |primary |not )?signal( accept( \w+)*)?$", r"is (not )?continuum event",
            r"gen ?(mother|particle)( \w+)*",
            r"is bb ?crossfeed", r"is clone track", r"qr ?mc",
            r"is (mc descendant|misidentified|wrong charge)( \w+)*", r"ccbar ?gen",
        ),
        exact=(
            ("weight", r"__weight__"),
            ("identifier", r"__(experiment|run|event|candidate|ncandidates|production|eventType)__"),
        ),
        ordinary=(r"(sig|signal) ?prob(ability)?",),
    ),
    Vocabulary(
        format="ALICE",
        source="https://aliceo2group.github.io/analysis-framework",
        truth=(
            r"f (mc|is mc|pdg|mask|origin mc|flag mc|debug mc|gen)( \w+)*", r"f? ?pdg ?code",
            r"f label$", r"o 2 mc ?\w*",
            r"cand type( \w+)*", r"^s hyper triton",
        ),
        identifier=(r"f (run number|global bc|timestamp|event id|bcs?)$", r"global bc$"),
        index=(r"^f index( \w+)*",),
        exact=(("truth", r"g(Ct|Phi|Pt|Pz|T|P|Eta|Reconstructed|Positive)"),),
    ),
    Vocabulary(
        format="Delphes",
        source="https://cp3.irmp.ucl.ac.be/projects/delphes/wiki/WorkBook/RootTreeDescription",
        truth=(
            r"^event (process id|mpi|scale|scale pdf|alpha \w+|id \d|x \d|pdf \d)$",
            r"^(n )?lhef? ?(event|weight)?( \w+)*",
            r"flav(ou?r)? (algo|phys)", r"^(eflow ?|e flow )?track pid$", r"^tau ?flav(ou?r)?$", r"gen delta z",
            r"gen sum pt( \d)?",
            r"^photon status$",
        ),
        identifier=(r"^event (number|read time|proc time)$", r"f unique id", r"f bits"),
        weight=(r"^event (weight|cross section)( \w+)*", r"^weight weight$"),
        exact=(
            ("index", r".*[./]refs?"),
            ("truth", r"(.*/)?(BeamSpot)?Particle[.#/].*|BeamSpotParticle(_.*)?"),
            ("truth", r"Particle(_([A-Z]\w*|size|charge|mass|time|spin.*|vertex.*|endpoint.*|momentum.*|\w*Status))?"),
        ),
    ),
    Vocabulary(
        format="EDM4hep, FCC",
        source="https://edm4hep.web.cern.ch",
        truth=(
            r"mc ?particles?( \w+)*", r"mc ?reco( \w+)*", r"\w* ?mc ?truth( \w+)*", r"reco mc( \w+)*",
            r"sim (tracker|calorimeter|primary)( \w+)*",
            r"gen ?(particles|vertices)( \w+)*", r"mc parent\w*",
        ),
        identifier=(r"^event header( \w+)*$",),
        weight=(r"^event header (weight|weights)$",),
        index=(r"\d+ index$", r"(collection|coll) id$", r"object id( \w+)*"),
        exact=(
            ("truth", r".*Contributions([._].*)?"), ("index", r".*[._]\w+s_(begin|end)"),
            ("index", r".*#\d+[._/](index|collectionID)"),
            ("index", r"_\w+[._](index|collectionID)"),
        ),
    ),
    Vocabulary(
        format="DUNE, NOvA, SBN",
        source="https://github.com/DUNE/lblpwgtools; https://github.com/SBNSoftware/sbnanaobj",
        truth=(
            r"nu ?pdg\w*( \w+)*", r"nu (mom|type|mode|ccnc|int ?type)( [xyz])?$", r"^nu (e|l|energy|parent)( \w+)?$",
            r"lep (pdg|nu angle|mom( [xyz])?)$", r"is ?[cn]c$", r"^(i )?cc ?nc$",
            r"^inter(action)?( type| mode)?$", r"^mode$", r"slpdg", r"^rec mc( \w+)*", r"t ?match( \w+)*",
            r"rec training( \w+)*", r"mcf( \w+)*",
            r"prefsi( \w+)*", r"true particles?( \w+)*", r"is (nu|numu|nue|cosmic) ?cc$", r"\w*pdg ?truth\w*",
        ),
        identifier=(r"rec hdr( \w+)*", r"^(sub ?run|spill|cycle|batch|cosmic|i spill)$"),
        weight=(r"pot( scale factor)?$", r"^(w|wgt|weight) (spline|tune|flux)( \w+)*", r"xsec ?cvwgt\w*", r"ppfx\w*"),
        exact=(
            ("truth", r"Ev|Enu|enu|LepE|Elep|LepPDG|NuMom[XYZ]|LepMom[XYZ]|LepNuAngle"),
            ("truth", r"nP|nN|ni(pip|pim|pi0|kp|km|k0|em|other)|nNucleus|nUNKNOWN|e(P|N|Pip|Pim|Pi0|Other|Recoil)"),
        ),
        ordinary=(r"nu score", r"f ?match( \w+)*", r"nu ?(slice|mu cc|e cc)? ?(pid|score|cvn\w*)"),
    ),
    Vocabulary(
        format="Mu2e EventNtuple",
        source="https://github.com/Mu2e/EventNtuple",
        truth=(

            r"(crv|calo?|cal|trk|hit|clus|evtinfo|[du][em]|r[em])\w{0,12}mc(sim|xit|ent|mid|vd|plane|s[si][ic]|pri|summary)?",
            r"gparent( \w+)*",
        ),
    ),
    Vocabulary(
        format="KM3NeT, IceCube",
        source="https://km3py.pages.km3net.de/km3io; https://docs.icecube.aq/icetray/main",
        truth=(
            r"mc (trks?|hits?|t|id|run id|event time)( \w+)*", r"mctree",
            r"(i 3 )?mc (tree|primary|muon|most energetic\w*)( \w+)*", r"polyplopia( \w+)*",
            r"primary neutrino( \w+)*", r"(neutrino|event) (parameters|properties)( \w+)*", r"lepton injector( \w+)*",
            r"i 3 genie( \w+)*",
            r"corsika( \w+)*",
        ),
        identifier=(
            r"^(i 3 )?event header( \w+)*", r"(run|det|frame|mc run) id$", r"frame index$", r"trigger counter$",
            r"overlays$", r"t f (sec|nano sec)$", r"^sub ?event( \w+)*$",
        ),
        weight=(r"w \d list$", r"one ?weight", r"mc ?weight ?dict( \w+)*", r"weight (dict|map)( \w+)*", r"evt w$"),
        exact=(
            ("identifier", r"(.*[./])?(id|run_id)|(trks|hits)_id"), ("weight", r"(Evt[._/])?w([23]list)?"),
            ("truth", r"(.*[./])?hits[._]origin"),
        ),
    ),
    Vocabulary(
        format="open data for machine learning: HiggsML, Flavours of Physics, TrackML, JetClass, top tagging",
        source="https://opendata.cern.ch/record/328; https://zenodo.org/records/6619768 and 2603256",
        truth=(r"^aux (truth|genpart)( \w+)*", r"^production$", r"^particle id$"),
        label=(r"^label( \w+)*$", r"^is signal new$"),
        identifier=(r"^kaggle set$", r"^event id$", r"^(hit|sample|process) ?id$", r"^is (train|test)$"),
        weight=(r"kaggle weight",),
        exact=(("identifier", r"ttv"),),
    ),
)  # fmt: skip


@functools.lru_cache(maxsize=20_000)
def phrase_of(name: str) -> str:
    """Split a name into its words, in lower case: at separators, capitals and digits.

    Examples
    --------
    >>> phrase_of("TrackGenJetAK4_pt"), phrase_of("B0_TRUEP_X"), phrase_of("MCParticles.PDG")
    ('track gen jet ak 4 pt', 'b 0 truep x', 'mc particles pdg')
    """
    return " ".join(_WORD.findall(name)).lower()


@functools.lru_cache(maxsize=20_000)
def is_named(kind: Kind, name: str) -> bool:
    """Say whether a name is one of those that a kind has, in any format.

    Examples
    --------
    >>> is_named("truth", "jet_trueflav"), is_named("truth", "event_structure")
    (True, False)
    """
    exact = _exact(kind)
    if exact is not None and exact.fullmatch(name):
        return True
    phrase = _ordinary().sub("·", phrase_of(name))
    return _words(kind).search(phrase) is not None


@functools.cache
def _words(kind: Kind) -> re.Pattern[str]:
    return _one_of(entry for vocabulary in VOCABULARIES for entry in getattr(vocabulary, kind))


@functools.cache
def _ordinary() -> re.Pattern[str]:
    return _one_of(entry for vocabulary in VOCABULARIES for entry in vocabulary.ordinary)


@functools.cache
def _exact(kind: Kind) -> re.Pattern[str] | None:
    found = [f"(?:{names})" for vocabulary in VOCABULARIES for of, names in vocabulary.exact if of == kind]
    return re.compile("|".join(found)) if found else None


def _one_of(entries: Iterable[str]) -> re.Pattern[str]:
    parts = "|".join(f"(?:{entry})" for entry in entries)
    return re.compile(rf"(?<![^ ])(?:{parts})(?![^ ])")
