"""Names of real files, by format: what must never be offered as a feature, and what must stay.

The names are those of the formats' documentation and of public files. What is judged by its values, and not by its name
(constants, places that tell the samples apart), is in `test_evidence.py`.
"""

import re
from pathlib import Path

import pytest

from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import role_of
from rootdata.inspection.words import VOCABULARIES, is_named, phrase_of
from rootdata.io.branches import Branch

# Format to role to names; a role may be "hidden": any but a feature.
NAMES = {
    "CMS NanoAOD": {
        "truth": "GenPart_pt GenPart_pdgId GenPart_genPartIdxMother GenPart_statusFlags GenJet_pt "
        "GenJet_partonFlavour GenJetAK8_mass SubGenJetAK8_pt GenVisTau_status GenDressedLepton_hasTauAnc "
        "GenIsolatedPhoton_pt GenMET_pt GenVtx_t0 GenProton_isPU TrackGenJetAK4_pt TrackGenJetAK4_eta "
        "nTrackGenJetAK4 nGenPart Generator_x1 Generator_id2 Generator_scalePDF LHE_HT LHE_Njets LHE_Vpt "
        "LHEPart_pdgId LHEPart_incomingpz HTXS_Higgs_pt HTXS_stage_0 Pileup_nTrueInt Pileup_nPU Pileup_gpudensity "
        "Pileup_sumEOOT Jet_hadronFlavour Jet_partonFlavour Jet_genJetIdx FatJet_nBHadrons FatJet_nCHadrons "
        "FatJet_genJetAK8Idx SubJet_nBHadrons Electron_genPartFlav Muon_genPartIdx Tau_genPartFlav "
        "boostedTau_genPartIdx MET_fiducialGenPt MET_fiducialGenPhi genTtbarId "
        "GenModel_TChiWZ_ZToLL_mNSLP_500_mLSP_400 Jet_hadronFlavor LowPtElectron_genPartFlav Photon_genPartIdx "
        "GenJet_nBHadrons GenSubJetAK8_mass CorrT1METJet_hadronFlavour LHEPart_firstMotherIdx nLHEPart genJet_pt "
        "CaloJet_partonFlavour GenCands_pdgId JetGenCands_jetIdx",
        "weight": "genWeight Generator_weight LHEWeight_originalXWGTUP LHEPdfWeight LHEScaleWeight PSWeight "
        "LHEReweightingWeight L1PreFiringWeight_Nom btagWeight_CSVV2 puWeight puWeightUp",
        "identifier": "run luminosityBlock event bunchCrossing",
        "index": "Jet_electronIdx1 Muon_jetIdx FatJet_subJetIdx2 FatJet_electronIdx3SJ SubJet_fatJetIdx Tau_svIdx1 "
        "FatJetPFCand_jetIdx Electron_fsrPhotonIdx",
        "trigger": "HLT_IsoMu24 L1_SingleMu22 Flag_goodVertices TrigObj_pt L1EG_pt L1EtSum_pt nTrigObj",
        "flag": "Jet_jetId Muon_looseId Muon_tightId Electron_cutBased Electron_mvaIso_WP80 "
        "Photon_vidNestedWPBitmap Muon_mvaMuID_WP Tau_idDeepTau2018v2p5VSjet Electron_convVeto Muon_isGlobal "
        "Photon_electronVeto Jet_puId Muon_pfIsoId Muon_mediumPromptId Tau_idAntiMu Tau_idDecayModeOldDMs "
        "Electron_isPFcand",
        "feature": "Jet_pt Jet_genericTag Jet_btagDeepFlavB Jet_btagDeepFlavCvL Jet_btagDeepFlavQG MET_significance "
        "Muon_mvaTTH Electron_mvaTTH Jet_btagUParTAK4B Jet_btagRobustParTAK4B Jet_btagPNetB Jet_PNetRegPtRawCorr "
        "FatJet_particleNet_XbbVsQCD FatJet_particleNetWithMass_TvsQCD FatJet_globalParT3_massCorrGeneric "
        "FatJet_globalParT3_XbbVsQCD Muon_promptMVA Electron_promptMVA Muon_pdgId PFCand_puppiWeight "
        "PFCands_puppiWeightNoLep PFCand_pdgId Tau_photonsOutsideSignalCone IsoTrack_isFromLostTrack PV_npvs "
        "PV_score Rho_fixedGridRhoFastjetAll MET_pt MET_sumEt MET_covXX PuppiMET_phi SoftActivityJetHT "
        "Jet_rawFactor Jet_muonSubtrFactor Jet_qgl Jet_nConstituents Jet_chHEF Electron_sieie Photon_mvaID "
        "Muon_softMva Tau_rawDeepTau2018v2p5VSjet Tau_decayMode Tau_decayModePNet SV_dlenSig SV_ntracks "
        "Jet_puIdDisc OtherPV_z Electron_hoe Muon_segmentComp FsrPhoton_relIso03 Jet_hfsigmaEtaEta "
        "LowPtElectron_unbiased Muon_tkRelIso BeamSpot_sigmaZ TauProd_pt Proton_multiRP_xi FatJet_n2b1 "
        "FatJet_msoftdrop FatJet_lsf3 Jet_nMuons nJet nMuon nFatJet Electron_scEtOverPt SubJet_btagDeepB",
    },
    "CMS MiniAOD-like": {
        "truth": "jet_hadronFlavour jet_partonFlavour jets_flavour genjet_pt genpart_pdgid gen_pt "
        "gen_isHiggsMatched genMET genmet genHT nGenJets genParticles_mother muon_isGenMatched jet_genpt jet_ptgen "
        "jet_gen_eta mc_pt mcPt lep_mcMatchId lep_mcMatchAny nTrueInt nTruePU npuTrue puTrue PUtrue "
        "trueNumInteractions nPU pthat ptHat qScale alphaQCD pdf_id1 xPDF1 scalePDF prunedGenParticles "
        "packedGenParticles slimmedGenJets lheHT lheNj LHEHT SimTrack_pt SimVertex_z simHit_x isSimulated "
        "jet_partonId Muon_simFlavour Muon_simPdgId isHardProcess gen_fromHardProcess motherPdgId lep_motherPdgId "
        "grandmotherPdg parentPDG status_flags hadronGhostFlavour dR_gen jet_matchedGenJet lep_isPrompt lep_isFake "
        "tauGenMatch MClepton_px MCleptonPDGid MChadronicBottom_px genlep_pt genTopPt ttbar_genpt Jet_matchedToMC "
        "geantino_sim mct_gen",
        "weight": "evtWeight event_weight mcWeight mc_weight xsec crossSection evt_wgt genWt lumiWeight weight_up "
        "pileupWeight w wt sumWeights kfactor filterEff lepSF btagSF sf_trigger weight weights sWeight sig_sw",
        "identifier": "evt ls lumi eventNumber runNumber lumiSection_id timeStamp isData is_data fileNumber "
        "sampleID sample_id process_id dataset signalProcessID",
        "feature": "mcharm structure event_shape eventually met_sig ht general generalTracks_pt jet_genericDisc "
        "mct2 mCT MCT lumiMask rho pfDeepFlavourJetTags_probb jet_deepFlavour_b jet_CSVv2 lep_flavour dilep_flavor "
        "sameFlavour isSF isOSSF centrality sphericity construed energyWeightedTime sumPtWeighted ptWeightedDr "
        "pt_weighted_dr track_weight vertexWeight pv_weights similarity simpleHT oxygen hydrogen_count regen_eta "
        "engine_x agent genus mcutoff nJets mll mt2 dphi_ll cosThetaStar jet1_pt lepton_charge spectral_index "
        "photonIndex tightness_score untrue_signalness emc_e bemc_energy cmc_score partial_width "
        "particle_multiplicity simplified_mass promptness trust_score nus_asym",
    },
    "CMS TreeMaker": {
        "truth": "GenElectrons GenHT GenJets_multiplicity GenMET GenMHT GenParticles_ParentId GenParticles_PdgId "
        "GenTaus_had GenTops Jets_hadronFlavor Jets_partonFlavor madHT madMinPhotonDeltaR madMinDeltaRStatus "
        "NumInteractions TrueNumInteractions SusyLSPMass SusyMotherMass SignalParameters JetsAK8_isHV "
        "Photons_nonPrompt Photons_genMatched Photons_electronFakes PDFids",
        "weight": "Weight CrossSection puWeight puSysUp puSysDown PDFweights ScaleWeights PSweights "
        "NonPrefiringProb NonPrefiringProbUp GenTopWeight",
        "identifier": "EvtNum RunNum LumiBlockNum",
        "index": "Jets_origIndex JetsAK8_parentIndex",
        "trigger": "TriggerPass TriggerPrescales TriggerVersion",
        "feature": "HT MHT MHTPhi MET METSignificance BTags NJets NVtx DeltaPhi1 Electrons_iso Jets_qgLikelihood "
        "Jets_bJetTagDeepFlavourBvsAll Jets_bDiscriminatorCSV JetsAK8_softDropMass JetsAK8_NsubjettinessTau1 "
        "Jets_ptD Jets_axismajor fixedGridRhoFastjetAll Muons_MTW isoPionTracks Photons_hadTowOverEM",
    },
    "ATLAS open data": {
        "truth": "lep_truthMatched jet_trueflav jet_truthMatched photon_truthMatched tau_truthMatched truth_pt "
        "largeRjet_truthMatched el_true_type mu_true_origin jet_truthflav jet_truthPartonLabel jet_isTrueHS",
        "weight": "mcWeight scaleFactor_PILEUP scaleFactor_ELE scaleFactor_MUON scaleFactor_BTAG "
        "scaleFactor_LepTRIGGER scaleFactor_COMBINED ScaleFactor_JVT XSection SumWeights sum_of_weights kfac "
        "filteff weight_mc weight_pileup weight_leptonSF weight_bTagSF_DL1r_77",
        "identifier": "runNumber eventNumber channelNumber",
        "trigger": "trigE trigM trigP lep_trigMatched photon_trigMatched",
        "flag": "lep_isTightID photon_isTightID",
        "feature": "lep_n lep_pt lep_eta lep_E lep_charge lep_type lep_ptcone30 lep_etcone20 lep_z0 "
        "lep_tracksigd0pvunbiased met_et met_phi jet_n jet_pt jet_E jet_jvt jet_MV2c10 jet_DL1d_quantile "
        "photon_convType tau_n tau_BDTid ditau_m largeRjet_D2 largeRjet_tau32 largeRjet_m vxp_z",
    },
    "ATLAS PHYSLITE": {
        "truth": "TruthElectronsAuxDyn.pt TruthBosonAuxDyn.pdgId TruthEventsAuxDyn.PDFINFO_X1 MET_TruthAuxDyn.mpx "
        "AntiKt4TruthDressedWZJetsAux.pt AntiKt10TruthSoftDropBeta100Zcut10JetsAux.m BornLeptonsAuxDyn.px "
        "HardScatterParticlesAuxDyn.px HardScatterVerticesAuxDyn.z AnalysisJetsAuxDyn.PartonTruthLabelID "
        "AnalysisJetsAuxDyn.HadronConeExclTruthLabelID AnalysisJetsAuxDyn.ConeTruthLabelID "
        "AnalysisJetsAuxDyn.isJvtHS AnalysisMuonsAuxDyn.truthType AnalysisMuonsAuxDyn.truthOrigin "
        "AnalysisElectronsAuxDyn.firstEgMotherPdgId AnalysisTauJetsAuxDyn.IsTruthMatched "
        "InDetTrackParticlesAuxDyn.truthMatchProbability AnalysisLargeRJetsAuxDyn.GhostBHadronsFinalCount "
        "AnalysisLargeRJetsAuxDyn.GhostHBosonsCount AnalysisLargeRJetsAuxDyn.GhostTQuarksFinalCount "
        "AnalysisLargeRJetsAuxDyn.R10TruthLabel_R21Precision AntiKt4TruthDressedWZJetsAuxDyn.TrueFlavor "
        "EventInfoAuxDyn.HTXS_prodMode EventInfoAuxDyn.GenFiltHT EventInfoAuxDyn.HF_Classification "
        "BornLeptonsAuxDyn.classifierParticleOrigin AnalysisJetsAuxDyn.TrueFlavor",
        "weight": "EventInfoAuxDyn.mcEventWeights EventInfoAuxDyn.PileupWeight_NOSYS",
        "hidden": "EventInfoAuxDyn.runNumber EventInfoAuxDyn.eventNumber EventInfoAuxDyn.mcChannelNumber "
        "EventInfoAuxDyn.mcEventNumber EventInfoAuxDyn.lumiBlock EventInfoAuxDyn.bcid EventInfoAuxDyn.timeStamp "
        "EventInfoAuxDyn.RandomRunNumber EventInfoAuxDyn.timeStampNSOffset EventInfoAuxDyn.pileUpMixtureIDLowBits "
        "AnalysisJetsAuxDyn.btaggingLink.m_persIndex AnalysisMuonsAuxDyn.muonSegmentLinks.m_persKey "
        "AnalysisMuonsAuxDyn.clusterLink xTrigDecisionAux.smk HLTNav_RepackedFeatures_ParticleAuxDyn.px",
        "flag": "AnalysisTauJetsAuxDyn.EleRNNLoose_v1 AnalysisJetsAuxDyn.DFCommonJets_jetClean_LooseBad "
        "AnalysisMuonsAuxDyn.quality AnalysisJetsAuxDyn.NNJvtPass AnalysisMuonsAuxDyn.DFCommonMuonPassIDCuts "
        "AnalysisElectronsAuxDyn.DFCommonElectronsLHTight",
        "feature": "AnalysisJetsAuxDyn.pt AnalysisJetsAuxDyn.m AnalysisJetsAuxDyn.EMFrac AnalysisJetsAuxDyn.Width "
        "AnalysisJetsAuxDyn.NumTrkPt500 AnalysisJetsAuxDyn.DFCommonJets_QGTagger_NTracks AnalysisJetsAuxDyn.Timing "
        "AnalysisMuonsAuxDyn.ptvarcone30_Nonprompt_All_MaxWeightTTVA_pt500 AnalysisMuonsAuxDyn.EnergyLoss "
        "AnalysisMuonsAuxDyn.topoetcone20 AnalysisLargeRJetsAuxDyn.GN2Xv01_phbb AnalysisLargeRJetsAuxDyn.D2 "
        "AnalysisElectronsAuxDyn.charge AnalysisTauJetsAuxDyn.NNDecayMode InDetTrackParticlesAuxDyn.d0 "
        "InDetTrackParticlesAuxDyn.numberOfPixelHits PrimaryVerticesAuxDyn.z "
        "BTagging_AntiKt4EMPFlowAuxDyn.GN2v01_pb MET_Core_AnalysisMETAuxDyn.mpx Kt4EMPFlowEventShapeAuxDyn.Density "
        "GSFTrackParticlesAuxDyn.qOverP AnalysisMuonsAuxDyn.momentumBalanceSignificance "
        "AnalysisJetsAuxDyn.GhostMuonSegmentCount EventInfoAuxDyn.averageInteractionsPerCrossing "
        "AnalysisTauJetsAuxDyn.RNNJetScoreSigTrans",
    },
    "LHCb": {
        "truth": "B0_TRUEID Kplus_TRUEP_X Kplus_TRUEP_E B0_TRUEPT B0_TRUEENDVERTEX_Z B0_TRUEORIGINVERTEX_X "
        "B0_TRUETAU muplus_TRUEISSTABLE B0_BKGCAT Kplus_MC_MOTHER_ID Kplus_MC_MOTHER_KEY muplus_MC_GD_GD_MOTHER_ID "
        "B0_OSCIL B0_TRUE_FD Lb_TRUEDecayTime D0_TRUEP_PT Bs_TRUE_ID Jpsi_MC_ID MC_pid",
        "identifier": "GpsTime runNumber eventNumber BCID BCType OdinTCK L0DUTCK HLT1TCK EventInSequence nCandidate "
        "totCandidates Polarity Kplus_TRACK_Key RUNNUMBER GPSTIME",
        "trigger": "RoutingBits MaxRoutingBits "
        "B0_L0HadronDecision_TOS B0_Hlt1TrackMVADecision_TOS B0_Hlt2Topo2BodyDecision_TIS L0MuonDecision "
        "B0_L0Global_TIS B0_Hlt1Phys_TOS Hlt1TrackMVADecision",
        "weight": "sweight nsig_sw sig_sw",
        "feature": "B0_PT B0_M B0_MM B0_P B0_ETA B0_IPCHI2_OWNPV B0_FDCHI2_OWNPV B0_DIRA_OWNPV B0_ENDVERTEX_CHI2 "
        "B0_TAU Kplus_PIDK Kplus_PIDp Kplus_ProbNNk Kplus_MC12TuneV2_ProbNNk piminus_MC15TuneV1_ProbNNpi "
        "muplus_isMuon muplus_TRACK_CHI2NDOF muplus_TRACK_GhostProb B0_MCORR B_MCORRERR B0_TAGDECISION "
        "B0_DTF_CHI2NDOF nPVs nTracks nSPDHits B0_CosTheta B0_ptasy_1.00 B0_CONEPTASYM Lb_OWNPV_X B0_MINIPCHI2",
    },
    "Belle II": {
        "truth": "mcPDG mcErrors mcP mcPhi mcPrimary nMCMatches genMotherPDG genMotherID genMotherPDG__bo1__bc "
        "isSignalAcceptMissingNeutrino isExtendedSignal isPrimarySignal isContinuumEvent isNotContinuumEvent "
        "isMisidentified isWrongCharge isBBCrossfeed isCloneTrack qrMC K_mcPDG D0_mcErrors mcMatching MCTrueP "
        "mcDecayVertexX gamma_mcPhotos ccbarGen isMCDescendantOfList",
        "identifier": "__event__ __run__ __experiment__ __candidate__ __ncandidates__ __production__ genParticleID",
        "weight": "__weight__",
        "label": "isSignal B0_isSignal D_isSignal",
        "feature": "Mbc deltaE M InvM pt p E cosTheta R2 thrustBm thrustOm cosTBTO CosTBz foxWolframR2 "
        "KSFWVariables__bohso00__bc CleoConeCS__bo1__bc SignalProbability SigProb sigProb "
        "extraInfo__boSignalProbability__bc FBDT_qrCombined roeE__bomask__bc kaonID pionID muonID electronID dr dz "
        "nCDCHits clusterE9E21 clusterTiming minC2TDist nTracks chiProb flightDistance missingMass2OfEvent "
        "aplanarity pValue K_kaonID D0_SigM harmonicMomentThrust0",
    },
    "ALICE": {
        "truth": "fMCLabel fMcMask fIsMC fPdgCode fPDGCode fFlagMcMatchRec fOriginMcRec fFlagMcMatchGen "
        "fMcCollisionId fDebugMcRec fGenPt fGenCtMC gPt gCt gReconstructed fIndexMcParticles fIndexMcCollisions "
        "cand_type pt_gen_cand fPtMC fLabel",
        "identifier": "fRunNumber fGlobalBC fTimestamp",
        "index": "fIndexCollisions fIndexTracks fIndexTracks_Pos fIndexBCs",
        "feature": "fPt fEta fPhi fM fCt fCpa fDcaDaughters fDCAPos fNSigmaTPCPi fTPCSignal fITSChi2NCl fCentFT0C "
        "fPVContributors fMatchMCHMID fChi2MatchMCHMID fCosPA fMlScoreBkg centrality tpcNsig_de inv_mass "
        "fTPCNClsFound fBeta fSign d_len cos_p dca_V0 fImpactParameter0 fV0CosPA",
    },
    "Delphes": {
        "truth": "Particle.PID Particle.PT Particle.Status Particle.M1 Particle.IsPU Particle_size "
        "Particle/Particle.PT Particle_PID GenJet.PT GenJet_size GenMissingET.MET Event.MPI Event.Scale "
        "Event.AlphaQCD Event.ID1 Event.X2 Event.PDF1 Event.ScalePDF Jet.Flavor Jet.FlavorAlgo Jet.FlavorPhys "
        "Track.PID EFlowTrack.PID Track.IsPU Vertex.GenDeltaZ Vertex.GenSumPT2 GenVertex.X FatJet.Flavor "
        "Photon.Status",
        "weight": "Event.Weight Event.CrossSection Event.CrossSectionError Weight.Weight",
        "identifier": "Event.Number Event.ProcessID Event.ReadTime Event.ProcTime Particle.fUniqueID "
        "LHEFEvent.ProcessID Jet.fUniqueID Jet.fBits Electron.fUniqueID",
        "index": "Track.VertexIndex Track.Particle.ref",
        "feature": "Jet.PT Jet.Eta Jet.Phi Jet.Mass Jet.BTag Jet.TauTag Jet.TauWeight Jet.Charge Jet.EhadOverEem "
        "Jet.NCharged Jet.Beta Jet.PTD Jet.T Jet.MeanSqDeltaR Electron.PT Electron.Charge Electron.IsolationVar "
        "Muon.D0 Photon.E MissingET.MET MissingET.Phi ScalarHT.HT Rho.Rho Track.P Track.D0 Tower.ET Tower.Eem "
        "EFlowPhoton.Ehad EFlowNeutralHadron.ET FatJet.SoftDroppedP4 Jet_size Electron_size Vertex.SumPT2 "
        "Track.ErrorD0 Muon.SumPtCharged",
    },
    "EDM4hep, FCC": {
        "truth": "MCParticles.PDG MCParticles.generatorStatus MCParticles.momentum.x _MCParticles_parents.index "
        "MCRecoAssociations#0.index RecoMCTruthLink#1.index SimTrackerHits.EDep SimCalorimeterHits.energy "
        "Particle.PDG Particle.charge Particle#0.index GenVertices.position.x genParticles.pdgId MC_pdg MC_status "
        "MC_parentindex RP_MC_index _MCRecoLinks_from.index ECalBarrelSimHits.energy",
        "weight": "EventHeader.weight MCRecoAssociations.weight RecoMCTruthLink.weight SiTracksMCTruthTracks.weight "
        "MCRecoLinks.weight",
        "identifier": "EventHeader.eventNumber EventHeader.runNumber EventHeader.timeStamp",
        "index": "ReconstructedParticles.tracks_begin ReconstructedParticles.clusters_end Jet#2.index "
        "_ReconstructedParticles_clusters.index _ReconstructedParticles_clusters.collectionID "
        "Electron#0.collectionID",
        "feature": "ReconstructedParticles.energy ReconstructedParticles.momentum.x ReconstructedParticles.charge "
        "ReconstructedParticles.mass ReconstructedParticles.PDG PandoraPFOs.energy EFlowTrack_1.D0 EFlowTrack_L "
        "EFlowPhoton.energy Jet.energy Jet.mass missingET.momentum.x RP_px RP_charge EVT_thrust_val "
        "EVT_sphericity_x ParticleIDs.likelihood TrackerHits.eDep",
    },
    "DUNE, NOvA, SBN": {
        "truth": "nuPDG nuPDGunosc nuPDG_truth ccnc_truth enu_truth Ev LepE LepPDG LepNuAngle LepMomX NuMomX isCC "
        "mode nipip niem eP eOther rec.mc.nu.pdg rec.mc.nnu rec.slc.truth.pdg rec.slc.tmatch.eff "
        "rec.slc.reco.trk.truth.p.pdg rec.true_particles.pdg rec.training.nu.pdg nu_pdg ccnc interaction "
        "true_e_visible backtracked_pdg backtracked_purity mc_pdg mcf_np slpdg nu_e trkpdgtruth_pandora mctrk_pdg "
        "mcshwr_origin geant_list_size trkidtruth_pandora isNC nu_parent_pdg",
        "identifier": "rec.hdr.run rec.hdr.subrun rec.hdr.evt rec.hdr.ismc run subrun spill",
        "weight": "pot POTScaleFactor weightSpline weightTune weightSplineTimesTune rec.mc.nu.xsec_cvwgt",
        "feature": "Ev_reco Elep_reco numu_pid nue_pid RecoMuTrackLength topological_score trk_llr_pid_score_v "
        "shr_energy_tot_cali nu_score nslice trk_len rec.slc.nu_score rec.slc.is_clear_cosmic rec.slc.fmatch.score "
        "rec.slc.calE rec.sel.cvnloosepreselptp.numuid rec.trk.kalman.len contained_fraction crtveto_score "
        "reco_nu_vtx_x slice_energy hits_y",
    },
    "KM3NeT, IceCube": {
        "truth": "mc_trks.E mc_trks.dir.x mc_hits.t mc_t Evt/mc_trks/mc_trks.E mc_id I3MCTree.energy "
        "MCPrimary.zenith MCMuon.energy PolyplopiaPrimary.energy PrimaryNeutrinoEnergy true_energy "
        "I3GENIEResultDict.y hits.origin",
        "weight": "w w2list w3list Evt.w OneWeight",
        "hidden": "run_id det_id frame_index trigger_counter overlays id trks.id hits.id mc_run_id "
        "mc_event_time.fSec I3MCWeightDict.PrimaryNeutrinoEnergy I3EventHeader.Run I3EventHeader.time_start_utc_daq "
        "SubEvent t.fSec t.fNanoSec CorsikaWeightMap.Weight",
        "feature": "trks.E trks.dir.x trks.len trks.lik trks.pos.z hits.t hits.tot hits.pos.x hits.a n_hits "
        "SplineMPE.zenith MuEX.energy HitMultiplicityValues.n_hit_doms SRTHVPulses.charge Homogenized_QTot "
        "LineFit.zenith trks.fitinf",
    },
    "open data for machine learning": {
        "hidden": "EventId Weight KaggleWeight KaggleSet Label Label_num label is_signal is_signal_new signal "
        "target y_true class class_label production id sample_id process process_id particle_id hit_id "
        "aux_genpart_pt aux_genpart_pid aux_truth_match label_QCD label_Hbb label_Tbqq truthE truthPX ttv weight "
        "sampleId isMC is_mc dataset_id fold is_train",
        "feature": "DER_mass_MMC DER_mass_transverse_met_lep DER_deltar_tau_lep DER_sum_pt PRI_tau_pt PRI_met "
        "PRI_jet_num PRI_jet_all_pt part_px part_deta part_d0val part_isChargedHadron part_isElectron jet_pt "
        "jet_sdmass jet_tau1 jet_nparticles lepton_pt missing_energy_magnitude m_bb m_wwbb jet_1_btag SPDhits "
        "LifeTime FlightDistance min_ANNmuon p0_track_Chi2Dof DOCAone isolationa CDF1 mass tx ty cell_charge",
    },
    "Mu2e": {
        "truth": "demmc.nhits depmcsim demtchmc.etot crvcoincsmc.pdgId crvcoincsmcplane.time "
        "crvsummarymc.totalEnergy crvcoincsmc.gparentPdgId trkmc trkmcsim evtinfomc.nprotons",
        "identifier": "evtinfo.run evtinfo.event evtinfo.subrun",
        "feature": "dem.nhits dem.chisq demtch.edep demtrkqual crvcoincs.PEs crvsummary.totalPEs dem.maxgap",
    },
    "ntuples of analyses": {
        "hidden": "Jet_nBHadrons SV_genMatched LHEPart_spin GenFatJet_pt genTop_pt genWeightSign Pileup_pthatmax "
        "fj_isBB fj_isNonBB fj_isQCD sample_isQCD label_QCD_b isB isGBB isLeptonicB isPhysG isUDS isTop "
        "mc_generator_weights el_truthPdgId tau_truthProng truth_HiggsPt dsid weight_normalise B_TRUE4vec "
        "B_MC_ENERGY StrippingBu2KmumuDecision Btag_isSignal B_d0_isSignal genNMissingDaughter nMCParticles "
        "mcFlavorOfOtherB clusterMCMatchWeight BeamSpotParticle.PT ECalBarrelCollectionContributions.PDG "
        "CaloHitMCParticleLinks.weight MCPhysicsParticles.PDG trueE trueNuE Truth_E MCNeutrino.energy oneweight "
        "TotalWeight primary_energy interaction_type mc_trks_usr mc_trks_pdgid event_id jet_label mc_label "
        "truth_label is_background isBackground y_true flavour_truth pdgid pdg_code mother1 PU_weight nTruePileup "
        "nPileup nInteractions hepmc_weight HepMCWeight top_parton_pt decayModeTrue b_true_pt deltaR_truth "
        "dRmin_gen sim_energy sim_trk_pt simTrackId nSimTracks PSimHit_x genInfo_qScale lhe_weights LheParticle_pt "
        "lheParts stxs_cat HTXS_stage1_2_cat_pTjet30GeV el_mcTruthType mu_matched_mc_pt recoTrueDR ptTrue pt_true "
        "Electron_trueOrigin trk_truth_pdg trk_backtracked_pdg bestmatch_mc_pdg slice_true_purity eventNum "
        "evtNumber EVENT_NUMBER RunNo run_no LumiBlock lumi_block bunchCrossingId BunchCrossing orbitNumber "
        "timestamp unix_time gps_time mcEventNumber file_index genMHT GENMET MCweight mcwgt w_mc evtW sumw "
        "totalWeight lumi_sf pileup_weight PUWeight pu_wgt puweight_up trigSF muonSF eleSF ele_id_sf btag_sf_up "
        "topPtWeight pdfWeights scale_weights hits_mc_id mcparticle_id mc_particle_pdg MC_vertex_x simvertex_z "
        "SimVtx_z Jet.Flavor GenJet_pt Jet_partonPdgId Jet_matchedPartonId quark_flavor jet_parton_id lep_gen_match "
        "lep_genOrigin",
        "feature": "trk_mcs_muon_mom_v mcs_momentum W Q2 x y nTightLeptons nLooseMuons n_bjets_medium nJetsMedium "
        "cell_id layer_id Jet_particleMultiplicity run2_score event_HT evt_HT entry_angle nCandidates m_W mW MT2W "
        "top_pt W_pt higgs_mass Jet_area HT_ratio evtShape lepton_iso_weighted labelled_score trackIso simpleMVA "
        "topTag_score WTag_score bTag_csv b_tag_weighted_mass eta_truncated truncatedMean constructed_mass "
        "structureFunction jet_flightDistance jet_charge jet_nTracks mcluster_e MCharge mchi2 lumiPV beamspot_z "
        "primary_vertex_z primaryVertexX PrimaryVertices_z parentage_score pdgMassConstraint_chi2 pdgMassWindow "
        "particleFlowIso genericMVA sample_variance fileSize processing_time indexed_pt unlinked_tracks statusWord "
        "isolation photon_isConv nPrimaryVertices nPV_good nGoodPV sigma_signal significance signal_significance "
        "targetMass target_z signal_like_score kinfit_prob",
    },
}  # fmt: skip

WHOLE = {"flag"}  # roles of whole numbers; everything else is tried as a real one


def role(name, expected):
    kind = "flat" if expected in {"label", "identifier", "hidden"} else "jagged"
    dtype = "int32" if expected in WHOLE else "float32"
    return role_of(BranchFacts(branch=Branch(name, kind, dtype), is_binary=False), ())


@pytest.mark.parametrize(("form", "expected"), [(f, r) for f, roles in NAMES.items() for r in roles])
def test_names_of_the_formats_have_their_roles(form, expected):
    found = {name: role(name, expected) for name in NAMES[form][expected].split()}
    if expected == "hidden":
        assert [name for name, r in found.items() if r == "feature"] == []
    else:
        assert {name: r for name, r in found.items() if r != expected} == {}


@pytest.mark.parametrize("form", NAMES)
def test_truth_is_truth_whatever_a_branch_holds(form):
    for name in NAMES[form].get("truth", "").split():
        for kind in ("flat", "jagged", "fixed"):
            for dtype in ("float32", "int32", "uint8", "bool"):
                column = BranchFacts(branch=Branch(name, kind, dtype), is_binary=dtype == "bool")
                assert role_of(column, (name,)) != "feature", (name, kind, dtype)
                assert role_of(column, (name,)) != "counter", (name, kind, dtype)


@pytest.mark.parametrize("form", NAMES)
def test_a_dot_may_be_an_underscore(form):
    """`inspect` calls ``Jet.pt`` of either kind of tree ``Jet_pt``."""
    for expected in set(NAMES[form]) - {"feature", "flag"}:
        names = [name.replace(".", "_", 1) for name in NAMES[form][expected].split() if "." in name]
        assert [name for name in names if role(name, expected) == "feature"] == []


def test_a_collection_lends_its_branches_what_it_is():
    column = BranchFacts(branch=Branch("px", "jagged", "float32"))
    assert role_of(column, (), collection="MCParticles") == role_of(column, (), collection="Particle") == "truth"
    assert role_of(column, (), collection="ReconstructedParticles") == "feature"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TrackGenJetAK4_pt", "track gen jet ak 4 pt"),
        ("AnalysisJetsAuxDyn.pt", "analysis jets aux dyn pt"),
        ("MCParticles.PDG", "mc particles pdg"),
        ("MClepton_px", "mc lepton px"),
        ("nTrueInt", "n true int"),
        ("__event__", "event"),
        ("B0_TRUEP_X", "b 0 truep x"),
        ("nuPDG", "nu pdg"),
        ("structure", "structure"),
        ("mcharm", "mcharm"),
    ],
)
def test_words_of_a_name(name, words):
    assert phrase_of(name) == words


def test_each_format_names_its_source_and_has_entries_that_compile():
    for vocabulary in VOCABULARIES:
        assert vocabulary.source
        assert vocabulary.truth
    assert len({vocabulary.format for vocabulary in VOCABULARIES}) == len(VOCABULARIES)


def test_no_list_takes_an_ordinary_word():
    """A word list that is too wide shows here: words of the language, and the names of what is measured."""
    words = """
        generation general gentle genus gene genome agent urgent energy trust trustee structure construct instruct
        similar simple simplex simplicity simulcast mcintosh weightless lightweight weigh eventful eventual
        runner running current curriculum lumen volume partition partial particular flavourful hadronic leptonic
        labelled signaling designal target_pt classic classify process_time production_vertex_x idle ideal width
        depth hlt2 pass compass
    """
    taken = [word for word in words.split() if any(is_named(kind, word) for kind in ("truth", "identifier", "weight"))]
    assert taken == []


DOCS = Path(__file__).parents[3] / "docs" / "truth.md"


def test_the_table_in_the_docs_is_that_of_the_words():
    text = DOCS.read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", text, re.MULTILINE))
    for vocabulary in VOCABULARIES:
        shown = [name.strip("`") for name in rows[vocabulary.format].split(", ")]
        assert len(shown) >= 3
        assert [name for name in shown if not is_named("truth", name)] == []
