"""The reference generator: the same nine files from Pythia 8 (showers, hadronisation) and FastJet, in hours.

Proton collisions at 13 TeV with initial- and final-state radiation. Multiparton interactions are off unless asked
for: they make generation three to four times slower. Needs
``pip install "rootdata[simulate]"``; both libraries are imported inside functions only.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import awkward as ak
import numpy as np

from rootdata.errors import ConfigError, RootDataError
from rootdata.tth.physics import analysis, detector
from rootdata.tth.physics.analysis import FAT_RADIUS, MIN_FAT_PT, MIN_JET_PT, RADIUS, FatJets, Jets, in_acceptance
from rootdata.tth.physics.arrays import Array, Bools, Floats, Ints, normal, order, select
from rootdata.tth.physics.kinematics import delta_r2, pt_eta_phi
from rootdata.tth.physics.process import BOTTOM, CHARM, GLUON
from rootdata.tth.samples import PROCESSES, QCD_PT_HAT, TTBAR, TTH
from rootdata.tth.sets import Selected, make_selected, selected_events
from rootdata.tth.write import Note

BLOCK_EVENTS: Final = 500
MIN_PARTICLE_PT: Final = 0.3  # GeV, what a tracker sees
MAX_PARTICLE_ETA: Final = 4.0
MIN_HADRON_PT: Final = 5.0  # of heavy hadrons that give a jet its flavour, GeV
MAX_HEAVY: Final = 40  # heavy hadrons, and partons, that are matched to jets
MAX_PARTONS: Final = 80
CLUSTERING_MARGIN: Final = (
    0.6  # jets are clustered from this fraction of the cut on pt, as resolution moves some of them over it
)
NEUTRINOS: Final = (12, 14, 16)
HIGGS: Final = 25
SEED_RANGE: Final = 900_000_000  # Pythia's own limit
MIN_TOP_PT: Final = 200.0  # GeV; softer top pairs have no boosted jet of 300 GeV

COMMON: Final = ("Print:quiet = on", "Random:setSeed = on", "Beams:eCM = 13000.")
HADRONIC_W: Final = ("24:onMode = off", "24:onIfAny = 1 2 3 4 5")


def ensure(
    folder: str | Path,
    n_events: int = 100_000,
    *,
    seed: int = 1,
    n_processes: int | None = None,
    multiparton: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Make the ``selected`` set with Pythia unless the folder has it already.

    The same numbers give the same events, however many processes share the work.

    Parameters
    ----------
    folder : to be made; absent or empty
    n_events : of all files together, shared out by ``samples.SHARES``
    seed : of all random numbers
    n_processes : operating-system processes; all processors by default
    multiparton : simulate multiparton interactions too
    progress : show a bar

    Returns
    -------
    the nine files, signal first

    Raises
    ------
    ConfigError
        If Pythia or FastJet is not installed, or a number is out of its range.
    DataError
        If the folder has another set, or anything else, in it.
    """
    require_pythia()
    n_processes = (os.cpu_count() or 1) if n_processes is None else n_processes
    if n_processes < 1:
        raise ConfigError(f"n_processes: {n_processes}; allowed: 1 or more")
    note = Note(generator="pythia-mpi" if multiparton else "pythia", set="selected", n_events=n_events, seed=seed)
    blocks = partial(selected_blocks, seed=seed, n_processes=n_processes, multiparton=multiparton)
    return make_selected(Path(folder), note, blocks=blocks, progress=progress)


def require_pythia() -> None:
    """Check that both libraries can be imported.

    Raises
    ------
    ConfigError
        If not; it names the extra to install.
    """
    try:
        import fastjet  # noqa: F401
        import pythia8mc  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'generator: pythia needs {error.name}; install with: pip install "rootdata[simulate]"'
        ) from error


def selected_blocks(process: str, *, seed: int, n_processes: int = 1, multiparton: bool = False) -> Iterator[Selected]:
    """Simulate a process block by block, without end; blocks come in order, whichever is ready first.

    Parameters
    ----------
    process : one of ``samples.PROCESSES``
    seed : of all random numbers, together with process and block
    n_processes : operating-system processes; with 1 all is done in this one
    multiparton : simulate multiparton interactions too
    """
    one = partial(select_block, process, seed=seed, multiparton=multiparton)
    if n_processes == 1:
        for block in count():
            yield one(block=block)
    # Spawn, not fork: the caller may have threads.
    pool = ProcessPoolExecutor(n_processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from _in_order(pool, one, ahead=2 * n_processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, one: partial[Selected], *, ahead: int) -> Iterator[Selected]:
    pending: deque[Future[Selected]] = deque()
    for block in count():
        pending.append(pool.submit(one, block=block))
        if len(pending) >= ahead:
            yield pending.popleft().result()


def select_block(
    process: str, *, seed: int, block: int, n_events: int = BLOCK_EVENTS, multiparton: bool = False
) -> Selected:
    """Simulate one block of a process with Pythia and keep the events that the analysis selects.

    Parameters
    ----------
    process : one of ``samples.PROCESSES``
    seed : of all random numbers, together with process and block
    block : number of the block, from 0
    n_events : of a block, before the selection
    multiparton : simulate multiparton interactions too
    """
    seeds = [seed, PROCESSES.index(process), block]
    rng = np.random.default_rng(seeds)
    particles = run_pythia(process, seeds=seeds, n_events=n_events, multiparton=multiparton)
    event = block * n_events + np.arange(len(particles))
    jets, fat_jets, met = reconstruct(rng, particles)
    candidate = analysis.find_candidate(jets, fat_jets)
    passes = analysis.is_selected(jets, fat_jets, candidate)
    particles, met = particles[passes], met[passes]
    jets, fat_jets, candidate = select(jets, passes), select(fat_jets, passes), select(candidate, passes)
    columns = analysis.variables(jets, fat_jets, candidate, met=met)
    events = selected_events(columns, jets=jets, fat_jets=fat_jets, event=event[passes])
    return Selected(events, _is_signal(process, particles, jets, candidate))


def settings(process: str, *, multiparton: bool = False) -> tuple[str, ...]:
    """Return what Pythia is told for a process, but for the seed."""
    common = (*COMMON, f"PartonLevel:MPI = {'on' if multiparton else 'off'}")
    if process == TTH:
        hard = "HiggsSM:gg2Httbar = on", "HiggsSM:qqbar2Httbar = on", "25:onMode = off", "25:onIfMatch = 5 -5"
        return (*common, *hard, *HADRONIC_W)
    if process == TTBAR:
        hard_top = "Top:gg2ttbar = on", "Top:qqbar2ttbar = on", f"PhaseSpace:pTHatMin = {MIN_TOP_PT}"
        return (*common, *hard_top, *HADRONIC_W)
    low, high = QCD_PT_HAT[process]
    upper = () if process == list(QCD_PT_HAT)[-1] else (f"PhaseSpace:pTHatMax = {high}",)
    return (*common, "HardQCD:all = on", f"PhaseSpace:pTHatMin = {low}", *upper)


def run_pythia(process: str, *, seeds: list[int], n_events: int, multiparton: bool) -> ak.Array:
    """Generate events: records of particles, (n_events, var) with pt, eta, phi, px, py, pz, E, id, status and mother1.

    Events that Pythia gives up on are left out.

    Parameters
    ----------
    process : one of ``samples.PROCESSES``
    seeds : of Pythia's random numbers, whole numbers of at least 0 that are mixed into one
    n_events : that Pythia is asked for
    multiparton : simulate multiparton interactions too

    Raises
    ------
    ConfigError
        For a setting that this version of Pythia does not know.
    RootDataError
        Where Pythia can't be initialised.
    """
    import pythia8mc

    os.environ.setdefault("PYTHIA8DATA", str(_settings_folder(Path(pythia8mc.__file__).parent)))
    generator = pythia8mc.Pythia("", False)
    number = int(np.random.SeedSequence(seeds).generate_state(1)[0]) % SEED_RANGE + 1
    for line in (*settings(process, multiparton=multiparton), f"Random:seed = {number}"):
        if not generator.readString(line):
            raise ConfigError(f"Pythia refuses the setting '{line}'; rootdata[simulate] pins the version that knows it")
    if not generator.init():
        raise RootDataError(f"Pythia can't be initialised for {process}")
    records = generator.nextBatch(n_events).prt
    momentum = np.stack([ak.to_numpy(ak.flatten(records.p[name])) for name in ("px", "py", "pz", "e")])
    pt, eta, phi = pt_eta_phi(momentum)
    columns = dict(zip(("px", "py", "pz", "E", "pt", "eta", "phi"), (*momentum, pt, eta, phi), strict=True))
    columns |= {name: ak.to_numpy(ak.flatten(records[name])) for name in ("id", "status", "mother1")}
    return ak.unflatten(ak.zip(columns), ak.num(records.id))


def _settings_folder(module_folder: Path) -> Path:
    """Find Pythia's data, beside the interpreter or, installed with ``--target``, beside the module."""
    for root in (Path(sys.prefix), module_folder):
        if (folder := root / "share" / "Pythia8" / "xmldoc").is_dir():
            return folder
    raise ConfigError(
        "Pythia's settings (share/Pythia8/xmldoc) not found; set the environment variable PYTHIA8DATA to their folder"
    )


def reconstruct(rng: np.random.Generator, particles: ak.Array) -> tuple[Jets, FatJets, Floats]:
    """Make measured jets, boosted jets and missing momentum (n_events,) in GeV of generated particles."""
    is_final = particles.status > 0
    is_neutrino = np.isin(_flat(abs(particles.id)), NEUTRINOS)
    is_neutrino = ak.unflatten(is_neutrino, ak.num(particles.id))
    in_detector = (particles.pt > MIN_PARTICLE_PT) & (abs(particles.eta) < MAX_PARTICLE_ETA)
    visible = particles[is_final & ~is_neutrino & in_detector]
    hadrons = _heavy_hadrons(particles)
    jets = _jets(rng, visible, hadrons=hadrons, partons=_last_partons(particles))
    fat_jets = _fat_jets(rng, visible, hadrons=hadrons)
    neutrinos = particles[is_final & is_neutrino]
    return jets, fat_jets, _missing_pt(rng, neutrinos, jets)


def _jets(rng: np.random.Generator, visible: ak.Array, *, hadrons: ParticleColumns, partons: ParticleColumns) -> Jets:
    jets, constituents = cluster(
        visible, radius=RADIUS, min_pt=CLUSTERING_MARGIN * MIN_JET_PT, n_jets=detector.MAX_JETS
    )
    pt, eta, phi, mass, is_real = _kinematics(jets, n_jets=detector.MAX_JETS)
    width = _pad(_width(jets, constituents), length=detector.MAX_JETS)
    flavour = _flavour(eta, phi, hadrons, radius=RADIUS)
    is_gluon = _leading_is_gluon(eta, phi, partons)
    response = np.clip(1 + detector.resolution(np.maximum(pt, 1)) * normal(rng, pt.shape), 0.2, 2)
    pt, mass = pt * response, mass * response
    is_real &= in_acceptance(pt, eta, min_pt=MIN_JET_PT)
    btag, qgl = detector.btag_score(rng, flavour, pt, eta), detector.quark_score(rng, is_gluon, width)
    return order(Jets(pt, eta, phi, mass, btag, qgl, is_real), np.where(is_real, pt, 0))


def _fat_jets(rng: np.random.Generator, visible: ak.Array, *, hadrons: ParticleColumns) -> FatJets:
    n_jets = detector.MAX_FAT_JETS
    jets, constituents = cluster(visible, radius=FAT_RADIUS, min_pt=CLUSTERING_MARGIN * MIN_FAT_PT, n_jets=n_jets)
    pt, eta, phi, mass, is_real = _kinematics(jets, n_jets=n_jets)
    counts = ak.num(jets.pt)
    softdrop_mass, taus, pairs = substructure(ak.flatten(constituents, axis=1))
    response = np.clip(1 + 0.85 * detector.resolution(np.maximum(pt, 1)) * normal(rng, pt.shape), 0.2, 2)
    pt, mass = pt * response, mass * response
    is_real &= in_acceptance(pt, eta, min_pt=MIN_FAT_PT)
    tau1, tau2, tau3 = (_pad(ak.unflatten(tau, counts), length=n_jets, fill=1) for tau in taus)
    subjets = [
        {name: _pad(ak.unflatten(values[:, i], counts), length=n_jets) for name, values in pairs.items()}
        for i in (0, 1)
    ]
    btag_sub0, btag_sub1 = (_tag_subjet(rng, subjets[i], hadrons, rival=subjets[1 - i]) for i in (0, 1))
    table = FatJets(
        pt=pt,
        eta=eta,
        phi=phi,
        mass=mass,
        msoftdrop=_pad(ak.unflatten(softdrop_mass, counts), length=n_jets) * response,
        tau1=tau1,
        tau2=tau2,
        tau3=tau3,
        btag_sub0=btag_sub0,
        btag_sub1=btag_sub1,
        mass_sub0=subjets[0]["mass"] * response,
        mass_sub1=subjets[1]["mass"] * response,
        pt_sub0=subjets[0]["pt"] * response,
        pt_sub1=subjets[1]["pt"] * response,
        is_real=is_real,
    )
    return order(table, np.where(is_real, pt, 0))


def _tag_subjet(
    rng: np.random.Generator, subjet: dict[str, Floats], hadrons: ParticleColumns, *, rival: dict[str, Floats]
) -> Floats:
    """Draw the b-tag score of one of two subjets, (n_events, n_jets): a hadron belongs to the nearer one."""
    flavour = _flavour(subjet["eta"], subjet["phi"], hadrons, radius=RADIUS, rival=(rival["eta"], rival["phi"]))
    return detector.btag_score(rng, flavour, subjet["pt"], subjet["eta"])


def cluster(visible: ak.Array, *, radius: float, min_pt: float, n_jets: int) -> tuple[ak.Array, ak.Array]:
    """Cluster particles with anti-kT (Cacciari, Salam, Soyez 2008).

    Parameters
    ----------
    visible : (n_events, var) particles with px, py, pz and E, GeV
    radius : of the jets, in the eta-phi plane
    min_pt : of a jet, GeV
    n_jets : jets that are kept of an event

    Returns
    -------
    jets, constituents
        (n_events, var), at most ``n_jets`` by falling pt, with pt, eta, phi and mass; and their particles,
        (n_events, var, var).
    """
    import fastjet

    sequence = fastjet.ClusterSequence(_momenta(visible), fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    jets, constituents = sequence.inclusive_jets(min_pt=min_pt), sequence.constituents(min_pt=min_pt)
    by_pt = ak.argsort(jets.px**2 + jets.py**2, ascending=False)[:, :n_jets]
    return _coordinates(jets[by_pt]), constituents[by_pt]


def substructure(constituents: ak.Array) -> tuple[Array, Array, dict[str, Array]]:
    """Groom jets with soft drop and measure their N-subjettiness.

    Soft drop with z 0.1 and beta 0 (Larkoski et al. 2014); N-subjettiness about kT axes (Thaler, Van Tilburg 2011).

    Parameters
    ----------
    constituents : (n_jets, var) particles of each jet

    Returns
    -------
    mass, taus, subjets
        Soft-drop masses (n_jets,), GeV; tau 1, 2 and 3 (3, n_jets); pt, eta, phi and mass of the two groomed
        subjets, the harder first, (n_jets, 2) each, 0 where there is one only.
    """
    import fastjet

    cambridge = fastjet.JetDefinition(fastjet.cambridge_algorithm, 10 * FAT_RADIUS)  # one jet takes all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # exclusive jets are meant
        sequence = fastjet.ClusterSequence(_momenta(constituents), cambridge)
        groomed = sequence.exclusive_jets_softdrop_grooming(njets=1, beta=0.0, symmetry_cut=0.1, R0=FAT_RADIUS)
        taus = sequence.njettiness(axes_definition="KT_Axes", njets=[1, 2, 3], beta=1.0, R0=FAT_RADIUS)
        inner = fastjet.ClusterSequence(_momenta(groomed.constituents), cambridge)
        pair = _coordinates(inner.exclusive_jets_up_to(n_jets=2))
    pair = pair[ak.argsort(pair.pt, ascending=False)]
    subjets = {name: _pad(pair[name], length=2) for name in ("pt", "eta", "phi", "mass")}
    taus = np.maximum(ak.to_numpy(taus).astype(np.float32), 1e-4).T  # of a single particle they vanish
    return ak.to_numpy(groomed.msoftdrop), taus, subjets


def _momenta(particles: ak.Array) -> ak.Array:
    return ak.zip({name: particles[name] for name in ("px", "py", "pz", "E")}, with_name="Momentum4D")


def _coordinates(momenta: ak.Array) -> ak.Array:
    counts = ak.num(momenta.px)
    p = np.stack([_flat(momenta[name]) for name in ("px", "py", "pz", "E")])
    pt, eta, phi = pt_eta_phi(p)
    mass = np.sqrt(np.maximum(p[3] ** 2 - (p[:3] ** 2).sum(axis=0), 0))
    return ak.unflatten(ak.zip({"pt": pt, "eta": eta, "phi": phi, "mass": mass}), counts)


def _kinematics(jets: ak.Array, *, n_jets: int) -> tuple[Floats, Floats, Floats, Floats, Bools]:
    pt, eta, phi, mass = (_pad(jets[name], length=n_jets) for name in ("pt", "eta", "phi", "mass"))
    return pt, eta, phi, mass, pt > 0


def _width(jets: ak.Array, constituents: ak.Array) -> ak.Array:
    """Return the pt-weighted mean distance (n_events, var) of the particles of jets from the axis."""
    per_jet = ak.flatten(constituents, axis=1)
    index = np.repeat(np.arange(len(per_jet)), ak.num(per_jet.px))
    pt, eta, phi = pt_eta_phi(np.stack([_flat(per_jet[name]) for name in ("px", "py", "pz")]))
    distance = np.sqrt(delta_r2(eta, phi, _flat(jets.eta)[index], _flat(jets.phi)[index]))
    weighted, total = (np.bincount(index, weights=w, minlength=len(per_jet)) for w in (pt * distance, pt))
    return ak.unflatten(weighted / np.maximum(total, 1e-6), ak.num(jets.pt))


ParticleColumns = tuple[
    Floats, Floats, Floats, Ints
]  # pt, eta, phi and a code, (n_events, length) each; pt 0 where absent


def _heavy_hadrons(particles: ak.Array) -> ParticleColumns:
    """List hadrons with b or c quarks; the code is that of the quark."""
    code = _flat(abs(particles.id))
    digits = code // 100 % 10, code // 1000 % 10
    flavour = np.where((digits[0] == BOTTOM) | (digits[1] == BOTTOM), BOTTOM, 0)
    flavour = np.where((flavour == 0) & ((digits[0] == CHARM) | (digits[1] == CHARM)), CHARM, flavour)
    flavour[code > 10_000_000] = 0  # Pythia's own codes of diffractive states
    keep = (flavour > 0) & (_flat(particles.pt) > MIN_HADRON_PT)
    return _columns(particles, flavour, keep=keep, length=MAX_HEAVY)


def _last_partons(particles: ak.Array) -> ParticleColumns:
    """List the quarks and gluons that go into hadronisation (status 71 and 72)."""
    keep = np.isin(_flat(abs(particles.status)), (71, 72)) & (_flat(particles.pt) > 1)
    return _columns(particles, _flat(particles.id), keep=keep, length=MAX_PARTONS)


def _columns(particles: ak.Array, code: Array, *, keep: Array, length: int) -> ParticleColumns:
    counts = ak.num(particles.pt)
    kept = ak.unflatten(keep, counts)
    pt, eta, phi, code = (a[kept] for a in (particles.pt, particles.eta, particles.phi, ak.unflatten(code, counts)))
    by_pt = ak.argsort(pt, ascending=False)
    pt, eta, phi, code = (_pad(a[by_pt], length=length) for a in (pt, eta, phi, code))
    return pt, eta, phi, code.astype(np.int32)


def _near(
    eta: Floats, phi: Floats, columns: ParticleColumns, *, radius: float, rival: tuple[Floats, Floats] | None = None
) -> Bools:
    """Tell which particles are near which jet, and nearer to it than to its rival, (n_events, n_jets, length)."""
    pt, other_eta, other_phi, _ = (column[:, None, :] for column in columns)
    distance2 = delta_r2(eta[:, :, None], phi[:, :, None], other_eta, other_phi)
    near = (distance2 < radius * radius) & (pt > 0)
    if rival is None:
        return near
    return near & (distance2 <= delta_r2(rival[0][:, :, None], rival[1][:, :, None], other_eta, other_phi))


def _flavour(
    eta: Floats, phi: Floats, hadrons: ParticleColumns, *, radius: float, rival: tuple[Floats, Floats] | None = None
) -> Ints:
    """Return the code of the heaviest quark of the hadrons in each jet (n_events, n_jets); 0 without one."""
    near = _near(eta, phi, hadrons, radius=radius, rival=rival)
    return np.asarray(np.where(near, hadrons[3][:, None, :], 0).max(axis=2))


def _leading_is_gluon(eta: Floats, phi: Floats, partons: ParticleColumns) -> Bools:
    """Tell whether the hardest parton of each jet is a gluon; partons are by falling pt, so the first one near is."""
    near = _near(eta, phi, partons, radius=RADIUS)
    code = np.take_along_axis(partons[3], near.argmax(axis=2), axis=1)
    return np.asarray(near.any(axis=2) & (code == GLUON))


def _missing_pt(rng: np.random.Generator, neutrinos: ak.Array, jets: Jets) -> Floats:
    n_vertices = rng.poisson(detector.PILEUP_MEAN, len(jets.pt))
    components: list[Floats] = []
    for component, direction in ((neutrinos.px, np.cos(jets.phi)), (neutrinos.py, np.sin(jets.phi))):
        wrong = detector.JET_MET * jets.pt * normal(rng, jets.pt.shape) * direction * jets.is_real
        true = ak.to_numpy(ak.sum(component, axis=1)).astype(np.float32)
        components.append(true + wrong.sum(axis=1) + detector.pileup_noise(rng, n_vertices))
    return np.asarray(np.hypot(*components))


def _is_signal(process: str, particles: ak.Array, jets: Jets, candidate: analysis.Candidate) -> Bools:
    if process != TTH:
        return np.zeros(len(jets.pt), bool)
    from_higgs = (abs(particles.id) == BOTTOM) & (particles.id[particles.mother1] == HIGGS)
    eta, phi = (_pad(particles[name][from_higgs], length=2) for name in ("eta", "phi"))
    return analysis.is_matched(jets, candidate, eta=eta, phi=phi)


def _flat(jagged: ak.Array) -> Array:
    return np.asarray(ak.to_numpy(ak.flatten(jagged, axis=None)))


def _pad(jagged: ak.Array, *, length: int, fill: float = 0) -> Floats:
    """Pad or cut each list to ``length``, float32."""
    padded = ak.fill_none(ak.pad_none(jagged, length, clip=True), fill)
    return np.asarray(ak.to_numpy(padded), np.float32)
