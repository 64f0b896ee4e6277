"""The UIDs of PS3.6 Table A-1 that a network service names, as constants by their keyword.

tests/support/uid_registry.py has written this file from the registry of pydicom 3.0.2
and from tests/standard/. Do not edit it: run that program again. The module is one long table,
and so may have more lines than a module of code.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AcquisitionContextSRStorage", "AdvancedBlendingPresentationStateStorage",
    "AmbulatoryECGWaveformStorage", "ArterialPulseWaveformStorage", "AudioSRStorageTrial",
    "AudioWaveformRealTimeCommunication", "AutorefractionMeasurementsStorage", "BasicAnnotationBox",
    "BasicColorImageBox", "BasicColorPrintManagementMeta", "BasicFilmBox", "BasicFilmSession",
    "BasicGrayscaleImageBox", "BasicGrayscalePrintManagementMeta", "BasicPrintImageOverlayBox",
    "BasicStructuredDisplayStorage", "BasicStudyContentNotification", "BasicTextSRStorage",
    "BasicVoiceAudioWaveformStorage", "BlendingSoftcopyPresentationStateStorage",
    "BodyPositionWaveformStorage", "BreastImagingRelevantPatientInformationQuery",
    "BreastProjectionXRayImageStorageForPresentation",
    "BreastProjectionXRayImageStorageForProcessing", "BreastTomosynthesisImageStorage",
    "CArmPhotonElectronRadiationRecordStorage", "CArmPhotonElectronRadiationStorage",
    "CTDefinedProcedureProtocolStorage", "CTImageStorage", "CTPerformedProcedureProtocolStorage",
    "CardiacElectrophysiologyWaveformStorage", "CardiacRelevantPatientInformationQuery",
    "ChestCADSRStorage", "ColonCADSRStorage", "ColorPaletteQueryRetrieveInformationModelFind",
    "ColorPaletteQueryRetrieveInformationModelGet", "ColorPaletteQueryRetrieveInformationModelMove",
    "ColorPaletteStorage", "ColorSoftcopyPresentationStateStorage",
    "CompositeInstanceRetrieveWithoutBulkDataGet", "CompositeInstanceRootRetrieveGet",
    "CompositeInstanceRootRetrieveMove", "CompositingPlanarMPRVolumetricPresentationStateStorage",
    "Comprehensive3DSRStorage", "ComprehensiveSRStorage", "ComprehensiveSRStorageTrial",
    "ComputedRadiographyImageStorage", "ConfocalMicroscopyImageStorage",
    "ConfocalMicroscopyTiledPyramidalImageStorage", "ContentAssessmentResultsStorage",
    "CornealTopographyMapStorage", "DICOMApplicationContext", "DICOS2DAITStorage",
    "DICOS3DAITStorage", "DICOSCTImageStorage", "DICOSDigitalXRayImageStorageForPresentation",
    "DICOSDigitalXRayImageStorageForProcessing", "DICOSQuadrupoleResonanceStorage",
    "DICOSThreatDetectionReportStorage", "DefinedProcedureProtocolInformationModelFind",
    "DefinedProcedureProtocolInformationModelGet", "DefinedProcedureProtocolInformationModelMove",
    "DeflatedExplicitVRLittleEndian", "DeflatedImageFrameCompression",
    "DeformableSpatialRegistrationStorage", "DermoscopicPhotographyImageStorage",
    "DetachedInterpretationManagement", "DetachedPatientManagement",
    "DetachedPatientManagementMeta", "DetachedResultsManagement", "DetachedResultsManagementMeta",
    "DetachedStudyManagement", "DetachedStudyManagementMeta", "DetachedVisitManagement",
    "DetailSRStorageTrial", "DigitalIntraOralXRayImageStorageForPresentation",
    "DigitalIntraOralXRayImageStorageForProcessing",
    "DigitalMammographyXRayImageStorageForPresentation",
    "DigitalMammographyXRayImageStorageForProcessing", "DigitalXRayImageStorageForPresentation",
    "DigitalXRayImageStorageForProcessing", "DisplaySystem", "DisplaySystemInstance",
    "EddyCurrentImageStorage", "EddyCurrentMultiFrameImageStorage", "ElectromyogramWaveformStorage",
    "ElectrooculogramWaveformStorage", "EncapsulatedCDAStorage", "EncapsulatedMTLStorage",
    "EncapsulatedOBJStorage", "EncapsulatedPDFStorage", "EncapsulatedSTLStorage",
    "EncapsulatedUncompressedExplicitVRLittleEndian", "EnhancedCTImageStorage",
    "EnhancedContinuousRTImageStorage", "EnhancedMRColorImageStorage", "EnhancedMRImageStorage",
    "EnhancedPETImageStorage", "EnhancedRTImageStorage", "EnhancedSRStorage",
    "EnhancedUSVolumeStorage", "EnhancedXAImageStorage", "EnhancedXRFImageStorage",
    "EnhancedXRayRadiationDoseSRStorage", "ExplicitVRBigEndian", "ExplicitVRLittleEndian",
    "ExtensibleSRStorage", "FallPalette", "General32bitECGWaveformStorage",
    "GeneralAudioWaveformStorage", "GeneralECGWaveformStorage",
    "GeneralPurposePerformedProcedureStep", "GeneralPurposeScheduledProcedureStep",
    "GeneralPurposeWorklistInformationModelFind", "GeneralPurposeWorklistManagementMeta",
    "GeneralRelevantPatientInformationQuery", "GenericImplantTemplateInformationModelFind",
    "GenericImplantTemplateInformationModelGet", "GenericImplantTemplateInformationModelMove",
    "GenericImplantTemplateStorage", "GrayscalePlanarMPRVolumetricPresentationStateStorage",
    "GrayscaleSoftcopyPresentationStateStorage", "HEVCM10P51", "HEVCMP51", "HTJ2K", "HTJ2KLossless",
    "HTJ2KLosslessRPCL", "HangingProtocolInformationModelFind",
    "HangingProtocolInformationModelGet", "HangingProtocolInformationModelMove",
    "HangingProtocolStorage", "HardcopyColorImageStorage", "HardcopyGrayscaleImageStorage",
    "HeightMapSegmentationStorage", "HemodynamicWaveformStorage", "HotIronPalette",
    "HotMetalBluePalette", "ImageOverlayBox", "ImplantAssemblyTemplateInformationModelFind",
    "ImplantAssemblyTemplateInformationModelGet", "ImplantAssemblyTemplateInformationModelMove",
    "ImplantAssemblyTemplateStorage", "ImplantTemplateGroupInformationModelFind",
    "ImplantTemplateGroupInformationModelGet", "ImplantTemplateGroupInformationModelMove",
    "ImplantTemplateGroupStorage", "ImplantationPlanSRStorage", "ImplicitVRLittleEndian",
    "InstanceAvailabilityNotification", "IntraocularLensCalculationsStorage",
    "IntravascularOpticalCoherenceTomographyImageStorageForPresentation",
    "IntravascularOpticalCoherenceTomographyImageStorageForProcessing", "InventoryCreation",
    "InventoryFind", "InventoryGet", "InventoryMove", "InventoryStorage", "JPEG2000",
    "JPEG2000Lossless", "JPEG2000MC", "JPEG2000MCLossless", "JPEGBaseline8Bit", "JPEGExtended12Bit",
    "JPEGExtended35", "JPEGExtendedHierarchical1618", "JPEGExtendedHierarchical1719",
    "JPEGFullProgressionHierarchical2426", "JPEGFullProgressionHierarchical2527",
    "JPEGFullProgressionNonHierarchical1012", "JPEGFullProgressionNonHierarchical1113",
    "JPEGLSLossless", "JPEGLSNearLossless", "JPEGLossless", "JPEGLosslessHierarchical28",
    "JPEGLosslessHierarchical29", "JPEGLosslessNonHierarchical15", "JPEGLosslessSV1",
    "JPEGSpectralSelectionHierarchical2022", "JPEGSpectralSelectionHierarchical2123",
    "JPEGSpectralSelectionNonHierarchical68", "JPEGSpectralSelectionNonHierarchical79", "JPEGXL",
    "JPEGXLJPEGRecompression", "JPEGXLLossless", "JPIPHTJ2KReferenced",
    "JPIPHTJ2KReferencedDeflate", "JPIPReferenced", "JPIPReferencedDeflate",
    "KeratometryMeasurementsStorage", "KeyObjectSelectionDocumentStorage",
    "LabelMapSegmentationStorage", "LegacyConvertedEnhancedCTImageStorage",
    "LegacyConvertedEnhancedMRImageStorage", "LegacyConvertedEnhancedPETImageStorage",
    "LensometryMeasurementsStorage", "MPEG2MPHL", "MPEG2MPHLF", "MPEG2MPML", "MPEG2MPMLF",
    "MPEG4HP41", "MPEG4HP41BD", "MPEG4HP41BDF", "MPEG4HP41F", "MPEG4HP422D", "MPEG4HP422DF",
    "MPEG4HP423D", "MPEG4HP423DF", "MPEG4HP42STEREO", "MPEG4HP42STEREOF", "MRImageStorage",
    "MRSpectroscopyStorage", "MacularGridThicknessAndVolumeReportStorage",
    "MammographyCADSRStorage", "MediaCreationManagement", "MediaStorageDirectoryStorage",
    "MicroscopyBulkSimpleAnnotationsStorage", "ModalityPerformedProcedureStep",
    "ModalityPerformedProcedureStepNotification", "ModalityPerformedProcedureStepRetrieve",
    "ModalityWorklistInformationModelFind", "MultiFrameGrayscaleByteSecondaryCaptureImageStorage",
    "MultiFrameGrayscaleWordSecondaryCaptureImageStorage",
    "MultiFrameSingleBitSecondaryCaptureImageStorage",
    "MultiFrameTrueColorSecondaryCaptureImageStorage", "MultichannelRespiratoryWaveformStorage",
    "MultipleVolumeRenderingVolumetricPresentationStateStorage", "NuclearMedicineImageStorage",
    "NuclearMedicineImageStorageRetired", "OphthalmicAxialMeasurementsStorage",
    "OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage",
    "OphthalmicOpticalCoherenceTomographyEnFaceImageStorage",
    "OphthalmicPhotography16BitImageStorage", "OphthalmicPhotography8BitImageStorage",
    "OphthalmicThicknessMapStorage", "OphthalmicTomographyImageStorage",
    "OphthalmicVisualFieldStaticPerimetryMeasurementsStorage", "PET20StepPalette", "PETPalette",
    "Papyrus3ImplicitVRLittleEndian", "ParametricMapStorage", "PatientRadiationDoseSRStorage",
    "PatientRootQueryRetrieveInformationModelFind", "PatientRootQueryRetrieveInformationModelGet",
    "PatientRootQueryRetrieveInformationModelMove",
    "PatientStudyOnlyQueryRetrieveInformationModelFind",
    "PatientStudyOnlyQueryRetrieveInformationModelGet",
    "PatientStudyOnlyQueryRetrieveInformationModelMove",
    "PerformedImagingAgentAdministrationSRStorage", "PhotoacousticImageStorage",
    "PlannedImagingAgentAdministrationSRStorage", "PositronEmissionTomographyImageStorage",
    "PresentationLUT", "PrintJob", "PrintQueueInstance", "PrintQueueManagement", "Printer",
    "PrinterConfigurationRetrieval", "PrinterConfigurationRetrievalInstance", "PrinterInstance",
    "ProceduralEventLogging", "ProceduralEventLoggingInstance", "ProcedureLogStorage",
    "ProductCharacteristicsQuery", "ProtocolApprovalInformationModelFind",
    "ProtocolApprovalInformationModelGet", "ProtocolApprovalInformationModelMove",
    "ProtocolApprovalStorage", "PseudoColorSoftcopyPresentationStateStorage", "PullPrintRequest",
    "PullStoredPrintManagementMeta", "RFC2557MIMEEncapsulation", "RLELossless",
    "RTBeamsDeliveryInstructionStorage", "RTBeamsDeliveryInstructionStorageTrial",
    "RTBeamsTreatmentRecordStorage", "RTBrachyApplicationSetupDeliveryInstructionStorage",
    "RTBrachyTreatmentRecordStorage", "RTConventionalMachineVerification",
    "RTConventionalMachineVerificationTrial", "RTDoseStorage", "RTImageStorage",
    "RTIonBeamsTreatmentRecordStorage", "RTIonMachineVerification", "RTIonMachineVerificationTrial",
    "RTIonPlanStorage", "RTPatientPositionAcquisitionInstructionStorage",
    "RTPhysicianIntentStorage", "RTPlanStorage", "RTRadiationRecordSetStorage",
    "RTRadiationSalvageRecordStorage", "RTRadiationSetDeliveryInstructionStorage",
    "RTRadiationSetStorage", "RTSegmentAnnotationStorage", "RTStructureSetStorage",
    "RTTreatmentPreparationStorage", "RTTreatmentSummaryRecordStorage",
    "RadiopharmaceuticalRadiationDoseSRStorage", "RawDataStorage", "RealWorldValueMappingStorage",
    "ReferencedColorPrintManagementMeta", "ReferencedGrayscalePrintManagementMeta",
    "ReferencedImageBox", "RenditionSelectionDocumentRealTimeCommunication", "RepositoryQuery",
    "RespiratoryWaveformStorage", "RoboticArmRadiationStorage", "RoboticRadiationRecordStorage",
    "RoutineScalpElectroencephalogramWaveformStorage",
    "SMPTEST211020UncompressedInterlacedActiveVideo",
    "SMPTEST211020UncompressedProgressiveActiveVideo", "SMPTEST211030PCMDigitalAudio",
    "SecondaryCaptureImageStorage", "SegmentationStorage",
    "SegmentedVolumeRenderingVolumetricPresentationStateStorage", "SimplifiedAdultEchoSRStorage",
    "SleepElectroencephalogramWaveformStorage", "SpatialFiducialsStorage",
    "SpatialRegistrationStorage", "SpectaclePrescriptionReportStorage", "SpringPalette",
    "StandaloneCurveStorage", "StandaloneModalityLUTStorage", "StandaloneOverlayStorage",
    "StandalonePETCurveStorage", "StandaloneVOILUTStorage", "StereometricRelationshipStorage",
    "Storage", "StorageCommitmentPullModel", "StorageCommitmentPullModelInstance",
    "StorageCommitmentPushModel", "StorageCommitmentPushModelInstance", "StorageManagementInstance",
    "StoredPrintStorage", "StudyComponentManagement", "StudyRootQueryRetrieveInformationModelFind",
    "StudyRootQueryRetrieveInformationModelGet", "StudyRootQueryRetrieveInformationModelMove",
    "SubjectiveRefractionMeasurementsStorage", "SubstanceAdministrationLogging",
    "SubstanceAdministrationLoggingInstance", "SubstanceApprovalQuery", "SummerPalette",
    "SurfaceScanMeshStorage", "SurfaceScanPointCloudStorage", "SurfaceSegmentationStorage",
    "TextSRStorageTrial", "ThermographyImageStorage", "ThermographyMultiFrameImageStorage",
    "TomotherapeuticRadiationRecordStorage", "TomotherapeuticRadiationStorage",
    "TractographyResultsStorage", "TwelveLeadECGWaveformStorage",
    "UPSFilteredGlobalSubscriptionInstance", "UPSGlobalSubscriptionInstance",
    "UltrasoundImageStorage", "UltrasoundImageStorageRetired", "UltrasoundMultiFrameImageStorage",
    "UltrasoundMultiFrameImageStorageRetired", "UltrasoundWaveformStorage",
    "UnifiedProcedureStepEvent", "UnifiedProcedureStepEventTrial", "UnifiedProcedureStepPull",
    "UnifiedProcedureStepPullTrial", "UnifiedProcedureStepPush", "UnifiedProcedureStepPushTrial",
    "UnifiedProcedureStepQuery", "UnifiedProcedureStepWatch", "UnifiedProcedureStepWatchTrial",
    "UnifiedWorklistAndProcedureStep", "UnifiedWorklistAndProcedureStepTrial",
    "VLEndoscopicImageStorage", "VLImageStorageTrial", "VLMicroscopicImageStorage",
    "VLMultiFrameImageStorageTrial", "VLPhotographicImageStorage",
    "VLSlideCoordinatesMicroscopicImageStorage", "VLWholeSlideMicroscopyImageStorage", "VOILUTBox",
    "VariableModalityLUTSoftcopyPresentationStateStorage", "Verification",
    "VideoEndoscopicImageRealTimeCommunication", "VideoEndoscopicImageStorage",
    "VideoMicroscopicImageStorage", "VideoPhotographicImageRealTimeCommunication",
    "VideoPhotographicImageStorage", "VisualAcuityMeasurementsStorage",
    "VolumeRenderingVolumetricPresentationStateStorage",
    "WaveformAcquisitionPresentationStateStorage", "WaveformAnnotationSRStorage",
    "WaveformPresentationStateStorage", "WaveformStorageTrial",
    "WideFieldOphthalmicPhotography3DCoordinatesImageStorage",
    "WideFieldOphthalmicPhotographyStereographicProjectionImageStorage", "WinterPalette",
    "XADefinedProcedureProtocolStorage", "XAPerformedProcedureProtocolStorage",
    "XAXRFGrayscaleSoftcopyPresentationStateStorage", "XMLEncoding",
    "XRay3DAngiographicImageStorage", "XRay3DCraniofacialImageStorage",
    "XRayAngiographicBiPlaneImageStorage", "XRayAngiographicImageStorage",
    "XRayRadiationDoseSRStorage", "XRayRadiofluoroscopicImageStorage",
]

# Application Context Name.
DICOMApplicationContext: Final = "1.2.840.10008.3.1.1.1"

# SOP Class.
Verification: Final = "1.2.840.10008.1.1"
MediaStorageDirectoryStorage: Final = "1.2.840.10008.1.3.10"
BasicStudyContentNotification: Final = "1.2.840.10008.1.9"
StorageCommitmentPushModel: Final = "1.2.840.10008.1.20.1"
StorageCommitmentPullModel: Final = "1.2.840.10008.1.20.2"
ProceduralEventLogging: Final = "1.2.840.10008.1.40"
SubstanceAdministrationLogging: Final = "1.2.840.10008.1.42"
DetachedPatientManagement: Final = "1.2.840.10008.3.1.2.1.1"
DetachedVisitManagement: Final = "1.2.840.10008.3.1.2.2.1"
DetachedStudyManagement: Final = "1.2.840.10008.3.1.2.3.1"
StudyComponentManagement: Final = "1.2.840.10008.3.1.2.3.2"
ModalityPerformedProcedureStep: Final = "1.2.840.10008.3.1.2.3.3"
ModalityPerformedProcedureStepRetrieve: Final = "1.2.840.10008.3.1.2.3.4"
ModalityPerformedProcedureStepNotification: Final = "1.2.840.10008.3.1.2.3.5"
DetachedResultsManagement: Final = "1.2.840.10008.3.1.2.5.1"
DetachedInterpretationManagement: Final = "1.2.840.10008.3.1.2.6.1"
BasicFilmSession: Final = "1.2.840.10008.5.1.1.1"
BasicFilmBox: Final = "1.2.840.10008.5.1.1.2"
BasicGrayscaleImageBox: Final = "1.2.840.10008.5.1.1.4"
BasicColorImageBox: Final = "1.2.840.10008.5.1.1.4.1"
ReferencedImageBox: Final = "1.2.840.10008.5.1.1.4.2"
PrintJob: Final = "1.2.840.10008.5.1.1.14"
BasicAnnotationBox: Final = "1.2.840.10008.5.1.1.15"
Printer: Final = "1.2.840.10008.5.1.1.16"
PrinterConfigurationRetrieval: Final = "1.2.840.10008.5.1.1.16.376"
VOILUTBox: Final = "1.2.840.10008.5.1.1.22"
PresentationLUT: Final = "1.2.840.10008.5.1.1.23"
ImageOverlayBox: Final = "1.2.840.10008.5.1.1.24"
BasicPrintImageOverlayBox: Final = "1.2.840.10008.5.1.1.24.1"
PrintQueueManagement: Final = "1.2.840.10008.5.1.1.26"
StoredPrintStorage: Final = "1.2.840.10008.5.1.1.27"
HardcopyGrayscaleImageStorage: Final = "1.2.840.10008.5.1.1.29"
HardcopyColorImageStorage: Final = "1.2.840.10008.5.1.1.30"
PullPrintRequest: Final = "1.2.840.10008.5.1.1.31"
MediaCreationManagement: Final = "1.2.840.10008.5.1.1.33"
DisplaySystem: Final = "1.2.840.10008.5.1.1.40"
ComputedRadiographyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.1"
DigitalXRayImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.1.1"
DigitalXRayImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.1.1.1"
DigitalMammographyXRayImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.1.2"
DigitalMammographyXRayImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.1.2.1"
DigitalIntraOralXRayImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.1.3"
DigitalIntraOralXRayImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.1.3.1"
CTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.2"
EnhancedCTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.2.1"
LegacyConvertedEnhancedCTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.2.2"
UltrasoundMultiFrameImageStorageRetired: Final = "1.2.840.10008.5.1.4.1.1.3"
UltrasoundMultiFrameImageStorage: Final = "1.2.840.10008.5.1.4.1.1.3.1"
MRImageStorage: Final = "1.2.840.10008.5.1.4.1.1.4"
EnhancedMRImageStorage: Final = "1.2.840.10008.5.1.4.1.1.4.1"
MRSpectroscopyStorage: Final = "1.2.840.10008.5.1.4.1.1.4.2"
EnhancedMRColorImageStorage: Final = "1.2.840.10008.5.1.4.1.1.4.3"
LegacyConvertedEnhancedMRImageStorage: Final = "1.2.840.10008.5.1.4.1.1.4.4"
NuclearMedicineImageStorageRetired: Final = "1.2.840.10008.5.1.4.1.1.5"
UltrasoundImageStorageRetired: Final = "1.2.840.10008.5.1.4.1.1.6"
UltrasoundImageStorage: Final = "1.2.840.10008.5.1.4.1.1.6.1"
EnhancedUSVolumeStorage: Final = "1.2.840.10008.5.1.4.1.1.6.2"
PhotoacousticImageStorage: Final = "1.2.840.10008.5.1.4.1.1.6.3"
SecondaryCaptureImageStorage: Final = "1.2.840.10008.5.1.4.1.1.7"
MultiFrameSingleBitSecondaryCaptureImageStorage: Final = "1.2.840.10008.5.1.4.1.1.7.1"
MultiFrameGrayscaleByteSecondaryCaptureImageStorage: Final = "1.2.840.10008.5.1.4.1.1.7.2"
MultiFrameGrayscaleWordSecondaryCaptureImageStorage: Final = "1.2.840.10008.5.1.4.1.1.7.3"
MultiFrameTrueColorSecondaryCaptureImageStorage: Final = "1.2.840.10008.5.1.4.1.1.7.4"
StandaloneOverlayStorage: Final = "1.2.840.10008.5.1.4.1.1.8"
StandaloneCurveStorage: Final = "1.2.840.10008.5.1.4.1.1.9"
WaveformStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.9.1"
TwelveLeadECGWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.1.1"
GeneralECGWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.1.2"
AmbulatoryECGWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.1.3"
General32bitECGWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.1.4"
HemodynamicWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.2.1"
CardiacElectrophysiologyWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.3.1"
BasicVoiceAudioWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.4.1"
GeneralAudioWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.4.2"
ArterialPulseWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.5.1"
RespiratoryWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.6.1"
MultichannelRespiratoryWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.6.2"
RoutineScalpElectroencephalogramWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.7.1"
ElectromyogramWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.7.2"
ElectrooculogramWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.7.3"
SleepElectroencephalogramWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.7.4"
BodyPositionWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.9.8.1"
WaveformPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.9.100.1"
WaveformAcquisitionPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.9.100.2"
StandaloneModalityLUTStorage: Final = "1.2.840.10008.5.1.4.1.1.10"
StandaloneVOILUTStorage: Final = "1.2.840.10008.5.1.4.1.1.11"
GrayscaleSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.1"
ColorSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.2"
PseudoColorSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.3"
BlendingSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.4"
XAXRFGrayscaleSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.5"
GrayscalePlanarMPRVolumetricPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.6"
CompositingPlanarMPRVolumetricPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.7"
AdvancedBlendingPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.8"
VolumeRenderingVolumetricPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.9"
SegmentedVolumeRenderingVolumetricPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.10"
MultipleVolumeRenderingVolumetricPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.11"
VariableModalityLUTSoftcopyPresentationStateStorage: Final = "1.2.840.10008.5.1.4.1.1.11.12"
XRayAngiographicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.12.1"
EnhancedXAImageStorage: Final = "1.2.840.10008.5.1.4.1.1.12.1.1"
XRayRadiofluoroscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.12.2"
EnhancedXRFImageStorage: Final = "1.2.840.10008.5.1.4.1.1.12.2.1"
XRayAngiographicBiPlaneImageStorage: Final = "1.2.840.10008.5.1.4.1.1.12.3"
XRay3DAngiographicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.13.1.1"
XRay3DCraniofacialImageStorage: Final = "1.2.840.10008.5.1.4.1.1.13.1.2"
BreastTomosynthesisImageStorage: Final = "1.2.840.10008.5.1.4.1.1.13.1.3"
BreastProjectionXRayImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.13.1.4"
BreastProjectionXRayImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.13.1.5"
IntravascularOpticalCoherenceTomographyImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.14.1"
IntravascularOpticalCoherenceTomographyImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.14.2"
NuclearMedicineImageStorage: Final = "1.2.840.10008.5.1.4.1.1.20"
ParametricMapStorage: Final = "1.2.840.10008.5.1.4.1.1.30"
RawDataStorage: Final = "1.2.840.10008.5.1.4.1.1.66"
SpatialRegistrationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.1"
SpatialFiducialsStorage: Final = "1.2.840.10008.5.1.4.1.1.66.2"
DeformableSpatialRegistrationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.3"
SegmentationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.4"
SurfaceSegmentationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.5"
TractographyResultsStorage: Final = "1.2.840.10008.5.1.4.1.1.66.6"
LabelMapSegmentationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.7"
HeightMapSegmentationStorage: Final = "1.2.840.10008.5.1.4.1.1.66.8"
RealWorldValueMappingStorage: Final = "1.2.840.10008.5.1.4.1.1.67"
SurfaceScanMeshStorage: Final = "1.2.840.10008.5.1.4.1.1.68.1"
SurfaceScanPointCloudStorage: Final = "1.2.840.10008.5.1.4.1.1.68.2"
VLImageStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.77.1"
VLEndoscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.1"
VideoEndoscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
VLMicroscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.2"
VideoMicroscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.2.1"
VLSlideCoordinatesMicroscopicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.3"
VLPhotographicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.4"
VideoPhotographicImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.4.1"
OphthalmicPhotography8BitImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
OphthalmicPhotography16BitImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.2"
StereometricRelationshipStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.3"
OphthalmicTomographyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
WideFieldOphthalmicPhotographyStereographicProjectionImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.5"
WideFieldOphthalmicPhotography3DCoordinatesImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.6"
OphthalmicOpticalCoherenceTomographyEnFaceImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.7"
OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.8"
VLWholeSlideMicroscopyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
DermoscopicPhotographyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
ConfocalMicroscopyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.8"
ConfocalMicroscopyTiledPyramidalImageStorage: Final = "1.2.840.10008.5.1.4.1.1.77.1.9"
VLMultiFrameImageStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.77.2"
LensometryMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.1"
AutorefractionMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.2"
KeratometryMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.3"
SubjectiveRefractionMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.4"
VisualAcuityMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.5"
SpectaclePrescriptionReportStorage: Final = "1.2.840.10008.5.1.4.1.1.78.6"
OphthalmicAxialMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.7"
IntraocularLensCalculationsStorage: Final = "1.2.840.10008.5.1.4.1.1.78.8"
MacularGridThicknessAndVolumeReportStorage: Final = "1.2.840.10008.5.1.4.1.1.79.1"
OphthalmicVisualFieldStaticPerimetryMeasurementsStorage: Final = "1.2.840.10008.5.1.4.1.1.80.1"
OphthalmicThicknessMapStorage: Final = "1.2.840.10008.5.1.4.1.1.81.1"
CornealTopographyMapStorage: Final = "1.2.840.10008.5.1.4.1.1.82.1"
TextSRStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.88.1"
AudioSRStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.88.2"
DetailSRStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.88.3"
ComprehensiveSRStorageTrial: Final = "1.2.840.10008.5.1.4.1.1.88.4"
BasicTextSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.11"
EnhancedSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.22"
ComprehensiveSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.33"
Comprehensive3DSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.34"
ExtensibleSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.35"
ProcedureLogStorage: Final = "1.2.840.10008.5.1.4.1.1.88.40"
MammographyCADSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.50"
KeyObjectSelectionDocumentStorage: Final = "1.2.840.10008.5.1.4.1.1.88.59"
ChestCADSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.65"
XRayRadiationDoseSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.67"
RadiopharmaceuticalRadiationDoseSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.68"
ColonCADSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.69"
ImplantationPlanSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.70"
AcquisitionContextSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.71"
SimplifiedAdultEchoSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.72"
PatientRadiationDoseSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.73"
PlannedImagingAgentAdministrationSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.74"
PerformedImagingAgentAdministrationSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.75"
EnhancedXRayRadiationDoseSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.76"
WaveformAnnotationSRStorage: Final = "1.2.840.10008.5.1.4.1.1.88.77"
ContentAssessmentResultsStorage: Final = "1.2.840.10008.5.1.4.1.1.90.1"
MicroscopyBulkSimpleAnnotationsStorage: Final = "1.2.840.10008.5.1.4.1.1.91.1"
EncapsulatedPDFStorage: Final = "1.2.840.10008.5.1.4.1.1.104.1"
EncapsulatedCDAStorage: Final = "1.2.840.10008.5.1.4.1.1.104.2"
EncapsulatedSTLStorage: Final = "1.2.840.10008.5.1.4.1.1.104.3"
EncapsulatedOBJStorage: Final = "1.2.840.10008.5.1.4.1.1.104.4"
EncapsulatedMTLStorage: Final = "1.2.840.10008.5.1.4.1.1.104.5"
PositronEmissionTomographyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.128"
LegacyConvertedEnhancedPETImageStorage: Final = "1.2.840.10008.5.1.4.1.1.128.1"
StandalonePETCurveStorage: Final = "1.2.840.10008.5.1.4.1.1.129"
EnhancedPETImageStorage: Final = "1.2.840.10008.5.1.4.1.1.130"
BasicStructuredDisplayStorage: Final = "1.2.840.10008.5.1.4.1.1.131"
CTDefinedProcedureProtocolStorage: Final = "1.2.840.10008.5.1.4.1.1.200.1"
CTPerformedProcedureProtocolStorage: Final = "1.2.840.10008.5.1.4.1.1.200.2"
ProtocolApprovalStorage: Final = "1.2.840.10008.5.1.4.1.1.200.3"
ProtocolApprovalInformationModelFind: Final = "1.2.840.10008.5.1.4.1.1.200.4"
ProtocolApprovalInformationModelMove: Final = "1.2.840.10008.5.1.4.1.1.200.5"
ProtocolApprovalInformationModelGet: Final = "1.2.840.10008.5.1.4.1.1.200.6"
XADefinedProcedureProtocolStorage: Final = "1.2.840.10008.5.1.4.1.1.200.7"
XAPerformedProcedureProtocolStorage: Final = "1.2.840.10008.5.1.4.1.1.200.8"
InventoryStorage: Final = "1.2.840.10008.5.1.4.1.1.201.1"
InventoryFind: Final = "1.2.840.10008.5.1.4.1.1.201.2"
InventoryMove: Final = "1.2.840.10008.5.1.4.1.1.201.3"
InventoryGet: Final = "1.2.840.10008.5.1.4.1.1.201.4"
InventoryCreation: Final = "1.2.840.10008.5.1.4.1.1.201.5"
RepositoryQuery: Final = "1.2.840.10008.5.1.4.1.1.201.6"
RTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.481.1"
RTDoseStorage: Final = "1.2.840.10008.5.1.4.1.1.481.2"
RTStructureSetStorage: Final = "1.2.840.10008.5.1.4.1.1.481.3"
RTBeamsTreatmentRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.4"
RTPlanStorage: Final = "1.2.840.10008.5.1.4.1.1.481.5"
RTBrachyTreatmentRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.6"
RTTreatmentSummaryRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.7"
RTIonPlanStorage: Final = "1.2.840.10008.5.1.4.1.1.481.8"
RTIonBeamsTreatmentRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.9"
RTPhysicianIntentStorage: Final = "1.2.840.10008.5.1.4.1.1.481.10"
RTSegmentAnnotationStorage: Final = "1.2.840.10008.5.1.4.1.1.481.11"
RTRadiationSetStorage: Final = "1.2.840.10008.5.1.4.1.1.481.12"
CArmPhotonElectronRadiationStorage: Final = "1.2.840.10008.5.1.4.1.1.481.13"
TomotherapeuticRadiationStorage: Final = "1.2.840.10008.5.1.4.1.1.481.14"
RoboticArmRadiationStorage: Final = "1.2.840.10008.5.1.4.1.1.481.15"
RTRadiationRecordSetStorage: Final = "1.2.840.10008.5.1.4.1.1.481.16"
RTRadiationSalvageRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.17"
TomotherapeuticRadiationRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.18"
CArmPhotonElectronRadiationRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.19"
RoboticRadiationRecordStorage: Final = "1.2.840.10008.5.1.4.1.1.481.20"
RTRadiationSetDeliveryInstructionStorage: Final = "1.2.840.10008.5.1.4.1.1.481.21"
RTTreatmentPreparationStorage: Final = "1.2.840.10008.5.1.4.1.1.481.22"
EnhancedRTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.481.23"
EnhancedContinuousRTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.481.24"
RTPatientPositionAcquisitionInstructionStorage: Final = "1.2.840.10008.5.1.4.1.1.481.25"
DICOSCTImageStorage: Final = "1.2.840.10008.5.1.4.1.1.501.1"
DICOSDigitalXRayImageStorageForPresentation: Final = "1.2.840.10008.5.1.4.1.1.501.2.1"
DICOSDigitalXRayImageStorageForProcessing: Final = "1.2.840.10008.5.1.4.1.1.501.2.2"
DICOSThreatDetectionReportStorage: Final = "1.2.840.10008.5.1.4.1.1.501.3"
DICOS2DAITStorage: Final = "1.2.840.10008.5.1.4.1.1.501.4"
DICOS3DAITStorage: Final = "1.2.840.10008.5.1.4.1.1.501.5"
DICOSQuadrupoleResonanceStorage: Final = "1.2.840.10008.5.1.4.1.1.501.6"
EddyCurrentImageStorage: Final = "1.2.840.10008.5.1.4.1.1.601.1"
EddyCurrentMultiFrameImageStorage: Final = "1.2.840.10008.5.1.4.1.1.601.2"
ThermographyImageStorage: Final = "1.2.840.10008.5.1.4.1.1.601.3"
ThermographyMultiFrameImageStorage: Final = "1.2.840.10008.5.1.4.1.1.601.4"
UltrasoundWaveformStorage: Final = "1.2.840.10008.5.1.4.1.1.601.5"
PatientRootQueryRetrieveInformationModelFind: Final = "1.2.840.10008.5.1.4.1.2.1.1"
PatientRootQueryRetrieveInformationModelMove: Final = "1.2.840.10008.5.1.4.1.2.1.2"
PatientRootQueryRetrieveInformationModelGet: Final = "1.2.840.10008.5.1.4.1.2.1.3"
StudyRootQueryRetrieveInformationModelFind: Final = "1.2.840.10008.5.1.4.1.2.2.1"
StudyRootQueryRetrieveInformationModelMove: Final = "1.2.840.10008.5.1.4.1.2.2.2"
StudyRootQueryRetrieveInformationModelGet: Final = "1.2.840.10008.5.1.4.1.2.2.3"
PatientStudyOnlyQueryRetrieveInformationModelFind: Final = "1.2.840.10008.5.1.4.1.2.3.1"
PatientStudyOnlyQueryRetrieveInformationModelMove: Final = "1.2.840.10008.5.1.4.1.2.3.2"
PatientStudyOnlyQueryRetrieveInformationModelGet: Final = "1.2.840.10008.5.1.4.1.2.3.3"
CompositeInstanceRootRetrieveMove: Final = "1.2.840.10008.5.1.4.1.2.4.2"
CompositeInstanceRootRetrieveGet: Final = "1.2.840.10008.5.1.4.1.2.4.3"
CompositeInstanceRetrieveWithoutBulkDataGet: Final = "1.2.840.10008.5.1.4.1.2.5.3"
DefinedProcedureProtocolInformationModelFind: Final = "1.2.840.10008.5.1.4.20.1"
DefinedProcedureProtocolInformationModelMove: Final = "1.2.840.10008.5.1.4.20.2"
DefinedProcedureProtocolInformationModelGet: Final = "1.2.840.10008.5.1.4.20.3"
ModalityWorklistInformationModelFind: Final = "1.2.840.10008.5.1.4.31"
GeneralPurposeWorklistInformationModelFind: Final = "1.2.840.10008.5.1.4.32.1"
GeneralPurposeScheduledProcedureStep: Final = "1.2.840.10008.5.1.4.32.2"
GeneralPurposePerformedProcedureStep: Final = "1.2.840.10008.5.1.4.32.3"
InstanceAvailabilityNotification: Final = "1.2.840.10008.5.1.4.33"
RTBeamsDeliveryInstructionStorageTrial: Final = "1.2.840.10008.5.1.4.34.1"
RTConventionalMachineVerificationTrial: Final = "1.2.840.10008.5.1.4.34.2"
RTIonMachineVerificationTrial: Final = "1.2.840.10008.5.1.4.34.3"
UnifiedProcedureStepPushTrial: Final = "1.2.840.10008.5.1.4.34.4.1"
UnifiedProcedureStepWatchTrial: Final = "1.2.840.10008.5.1.4.34.4.2"
UnifiedProcedureStepPullTrial: Final = "1.2.840.10008.5.1.4.34.4.3"
UnifiedProcedureStepEventTrial: Final = "1.2.840.10008.5.1.4.34.4.4"
UnifiedProcedureStepPush: Final = "1.2.840.10008.5.1.4.34.6.1"
UnifiedProcedureStepWatch: Final = "1.2.840.10008.5.1.4.34.6.2"
UnifiedProcedureStepPull: Final = "1.2.840.10008.5.1.4.34.6.3"
UnifiedProcedureStepEvent: Final = "1.2.840.10008.5.1.4.34.6.4"
UnifiedProcedureStepQuery: Final = "1.2.840.10008.5.1.4.34.6.5"
RTBeamsDeliveryInstructionStorage: Final = "1.2.840.10008.5.1.4.34.7"
RTConventionalMachineVerification: Final = "1.2.840.10008.5.1.4.34.8"
RTIonMachineVerification: Final = "1.2.840.10008.5.1.4.34.9"
RTBrachyApplicationSetupDeliveryInstructionStorage: Final = "1.2.840.10008.5.1.4.34.10"
GeneralRelevantPatientInformationQuery: Final = "1.2.840.10008.5.1.4.37.1"
BreastImagingRelevantPatientInformationQuery: Final = "1.2.840.10008.5.1.4.37.2"
CardiacRelevantPatientInformationQuery: Final = "1.2.840.10008.5.1.4.37.3"
HangingProtocolStorage: Final = "1.2.840.10008.5.1.4.38.1"
HangingProtocolInformationModelFind: Final = "1.2.840.10008.5.1.4.38.2"
HangingProtocolInformationModelMove: Final = "1.2.840.10008.5.1.4.38.3"
HangingProtocolInformationModelGet: Final = "1.2.840.10008.5.1.4.38.4"
ColorPaletteStorage: Final = "1.2.840.10008.5.1.4.39.1"
ColorPaletteQueryRetrieveInformationModelFind: Final = "1.2.840.10008.5.1.4.39.2"
ColorPaletteQueryRetrieveInformationModelMove: Final = "1.2.840.10008.5.1.4.39.3"
ColorPaletteQueryRetrieveInformationModelGet: Final = "1.2.840.10008.5.1.4.39.4"
ProductCharacteristicsQuery: Final = "1.2.840.10008.5.1.4.41"
SubstanceApprovalQuery: Final = "1.2.840.10008.5.1.4.42"
GenericImplantTemplateStorage: Final = "1.2.840.10008.5.1.4.43.1"
GenericImplantTemplateInformationModelFind: Final = "1.2.840.10008.5.1.4.43.2"
GenericImplantTemplateInformationModelMove: Final = "1.2.840.10008.5.1.4.43.3"
GenericImplantTemplateInformationModelGet: Final = "1.2.840.10008.5.1.4.43.4"
ImplantAssemblyTemplateStorage: Final = "1.2.840.10008.5.1.4.44.1"
ImplantAssemblyTemplateInformationModelFind: Final = "1.2.840.10008.5.1.4.44.2"
ImplantAssemblyTemplateInformationModelMove: Final = "1.2.840.10008.5.1.4.44.3"
ImplantAssemblyTemplateInformationModelGet: Final = "1.2.840.10008.5.1.4.44.4"
ImplantTemplateGroupStorage: Final = "1.2.840.10008.5.1.4.45.1"
ImplantTemplateGroupInformationModelFind: Final = "1.2.840.10008.5.1.4.45.2"
ImplantTemplateGroupInformationModelMove: Final = "1.2.840.10008.5.1.4.45.3"
ImplantTemplateGroupInformationModelGet: Final = "1.2.840.10008.5.1.4.45.4"
VideoEndoscopicImageRealTimeCommunication: Final = "1.2.840.10008.10.1"
VideoPhotographicImageRealTimeCommunication: Final = "1.2.840.10008.10.2"
AudioWaveformRealTimeCommunication: Final = "1.2.840.10008.10.3"
RenditionSelectionDocumentRealTimeCommunication: Final = "1.2.840.10008.10.4"

# Meta SOP Class.
DetachedPatientManagementMeta: Final = "1.2.840.10008.3.1.2.1.4"
DetachedResultsManagementMeta: Final = "1.2.840.10008.3.1.2.5.4"
DetachedStudyManagementMeta: Final = "1.2.840.10008.3.1.2.5.5"
BasicGrayscalePrintManagementMeta: Final = "1.2.840.10008.5.1.1.9"
ReferencedGrayscalePrintManagementMeta: Final = "1.2.840.10008.5.1.1.9.1"
BasicColorPrintManagementMeta: Final = "1.2.840.10008.5.1.1.18"
ReferencedColorPrintManagementMeta: Final = "1.2.840.10008.5.1.1.18.1"
PullStoredPrintManagementMeta: Final = "1.2.840.10008.5.1.1.32"
GeneralPurposeWorklistManagementMeta: Final = "1.2.840.10008.5.1.4.32"

# Service Class.
Storage: Final = "1.2.840.10008.4.2"
UnifiedWorklistAndProcedureStepTrial: Final = "1.2.840.10008.5.1.4.34.4"
UnifiedWorklistAndProcedureStep: Final = "1.2.840.10008.5.1.4.34.6"

# Well-known SOP Instance.
HotIronPalette: Final = "1.2.840.10008.1.5.1"
PETPalette: Final = "1.2.840.10008.1.5.2"
HotMetalBluePalette: Final = "1.2.840.10008.1.5.3"
PET20StepPalette: Final = "1.2.840.10008.1.5.4"
SpringPalette: Final = "1.2.840.10008.1.5.5"
SummerPalette: Final = "1.2.840.10008.1.5.6"
FallPalette: Final = "1.2.840.10008.1.5.7"
WinterPalette: Final = "1.2.840.10008.1.5.8"
StorageCommitmentPushModelInstance: Final = "1.2.840.10008.1.20.1.1"
StorageCommitmentPullModelInstance: Final = "1.2.840.10008.1.20.2.1"
ProceduralEventLoggingInstance: Final = "1.2.840.10008.1.40.1"
SubstanceAdministrationLoggingInstance: Final = "1.2.840.10008.1.42.1"
PrinterInstance: Final = "1.2.840.10008.5.1.1.17"
PrinterConfigurationRetrievalInstance: Final = "1.2.840.10008.5.1.1.17.376"
PrintQueueInstance: Final = "1.2.840.10008.5.1.1.25"
DisplaySystemInstance: Final = "1.2.840.10008.5.1.1.40.1"
StorageManagementInstance: Final = "1.2.840.10008.5.1.4.1.1.201.1.1"
UPSGlobalSubscriptionInstance: Final = "1.2.840.10008.5.1.4.34.5"
UPSFilteredGlobalSubscriptionInstance: Final = "1.2.840.10008.5.1.4.34.5.1"

# Transfer Syntax.
ImplicitVRLittleEndian: Final = "1.2.840.10008.1.2"
ExplicitVRLittleEndian: Final = "1.2.840.10008.1.2.1"
EncapsulatedUncompressedExplicitVRLittleEndian: Final = "1.2.840.10008.1.2.1.98"
DeflatedExplicitVRLittleEndian: Final = "1.2.840.10008.1.2.1.99"
ExplicitVRBigEndian: Final = "1.2.840.10008.1.2.2"
JPEGBaseline8Bit: Final = "1.2.840.10008.1.2.4.50"
JPEGExtended12Bit: Final = "1.2.840.10008.1.2.4.51"
JPEGExtended35: Final = "1.2.840.10008.1.2.4.52"
JPEGSpectralSelectionNonHierarchical68: Final = "1.2.840.10008.1.2.4.53"
JPEGSpectralSelectionNonHierarchical79: Final = "1.2.840.10008.1.2.4.54"
JPEGFullProgressionNonHierarchical1012: Final = "1.2.840.10008.1.2.4.55"
JPEGFullProgressionNonHierarchical1113: Final = "1.2.840.10008.1.2.4.56"
JPEGLossless: Final = "1.2.840.10008.1.2.4.57"
JPEGLosslessNonHierarchical15: Final = "1.2.840.10008.1.2.4.58"
JPEGExtendedHierarchical1618: Final = "1.2.840.10008.1.2.4.59"
JPEGExtendedHierarchical1719: Final = "1.2.840.10008.1.2.4.60"
JPEGSpectralSelectionHierarchical2022: Final = "1.2.840.10008.1.2.4.61"
JPEGSpectralSelectionHierarchical2123: Final = "1.2.840.10008.1.2.4.62"
JPEGFullProgressionHierarchical2426: Final = "1.2.840.10008.1.2.4.63"
JPEGFullProgressionHierarchical2527: Final = "1.2.840.10008.1.2.4.64"
JPEGLosslessHierarchical28: Final = "1.2.840.10008.1.2.4.65"
JPEGLosslessHierarchical29: Final = "1.2.840.10008.1.2.4.66"
JPEGLosslessSV1: Final = "1.2.840.10008.1.2.4.70"
JPEGLSLossless: Final = "1.2.840.10008.1.2.4.80"
JPEGLSNearLossless: Final = "1.2.840.10008.1.2.4.81"
JPEG2000Lossless: Final = "1.2.840.10008.1.2.4.90"
JPEG2000: Final = "1.2.840.10008.1.2.4.91"
JPEG2000MCLossless: Final = "1.2.840.10008.1.2.4.92"
JPEG2000MC: Final = "1.2.840.10008.1.2.4.93"
JPIPReferenced: Final = "1.2.840.10008.1.2.4.94"
JPIPReferencedDeflate: Final = "1.2.840.10008.1.2.4.95"
MPEG2MPML: Final = "1.2.840.10008.1.2.4.100"
MPEG2MPMLF: Final = "1.2.840.10008.1.2.4.100.1"
MPEG2MPHL: Final = "1.2.840.10008.1.2.4.101"
MPEG2MPHLF: Final = "1.2.840.10008.1.2.4.101.1"
MPEG4HP41: Final = "1.2.840.10008.1.2.4.102"
MPEG4HP41F: Final = "1.2.840.10008.1.2.4.102.1"
MPEG4HP41BD: Final = "1.2.840.10008.1.2.4.103"
MPEG4HP41BDF: Final = "1.2.840.10008.1.2.4.103.1"
MPEG4HP422D: Final = "1.2.840.10008.1.2.4.104"
MPEG4HP422DF: Final = "1.2.840.10008.1.2.4.104.1"
MPEG4HP423D: Final = "1.2.840.10008.1.2.4.105"
MPEG4HP423DF: Final = "1.2.840.10008.1.2.4.105.1"
MPEG4HP42STEREO: Final = "1.2.840.10008.1.2.4.106"
MPEG4HP42STEREOF: Final = "1.2.840.10008.1.2.4.106.1"
HEVCMP51: Final = "1.2.840.10008.1.2.4.107"
HEVCM10P51: Final = "1.2.840.10008.1.2.4.108"
JPEGXLLossless: Final = "1.2.840.10008.1.2.4.110"
JPEGXLJPEGRecompression: Final = "1.2.840.10008.1.2.4.111"
JPEGXL: Final = "1.2.840.10008.1.2.4.112"
HTJ2KLossless: Final = "1.2.840.10008.1.2.4.201"
HTJ2KLosslessRPCL: Final = "1.2.840.10008.1.2.4.202"
HTJ2K: Final = "1.2.840.10008.1.2.4.203"
JPIPHTJ2KReferenced: Final = "1.2.840.10008.1.2.4.204"
JPIPHTJ2KReferencedDeflate: Final = "1.2.840.10008.1.2.4.205"
RLELossless: Final = "1.2.840.10008.1.2.5"
RFC2557MIMEEncapsulation: Final = "1.2.840.10008.1.2.6.1"
XMLEncoding: Final = "1.2.840.10008.1.2.6.2"
SMPTEST211020UncompressedProgressiveActiveVideo: Final = "1.2.840.10008.1.2.7.1"
SMPTEST211020UncompressedInterlacedActiveVideo: Final = "1.2.840.10008.1.2.7.2"
SMPTEST211030PCMDigitalAudio: Final = "1.2.840.10008.1.2.7.3"
DeflatedImageFrameCompression: Final = "1.2.840.10008.1.2.8.1"
Papyrus3ImplicitVRLittleEndian: Final = "1.2.840.10008.1.20"

#: UID -> name, kind and whether it is retired.
REGISTRY: Final[dict[str, tuple[str, str, bool]]] = {
    DICOMApplicationContext: ("DICOM Application Context Name", "Application Context Name", False),
    Verification: ("Verification SOP Class", "SOP Class", False),
    MediaStorageDirectoryStorage: ("Media Storage Directory Storage", "SOP Class", False),
    BasicStudyContentNotification: ("Basic Study Content Notification SOP Class", "SOP Class", True),
    StorageCommitmentPushModel: ("Storage Commitment Push Model SOP Class", "SOP Class", False),
    StorageCommitmentPullModel: ("Storage Commitment Pull Model SOP Class", "SOP Class", True),
    ProceduralEventLogging: ("Procedural Event Logging SOP Class", "SOP Class", False),
    SubstanceAdministrationLogging: ("Substance Administration Logging SOP Class", "SOP Class", False),
    DetachedPatientManagement: ("Detached Patient Management SOP Class", "SOP Class", True),
    DetachedVisitManagement: ("Detached Visit Management SOP Class", "SOP Class", True),
    DetachedStudyManagement: ("Detached Study Management SOP Class", "SOP Class", True),
    StudyComponentManagement: ("Study Component Management SOP Class", "SOP Class", True),
    ModalityPerformedProcedureStep: ("Modality Performed Procedure Step SOP Class", "SOP Class", False),
    ModalityPerformedProcedureStepRetrieve: ("Modality Performed Procedure Step Retrieve SOP Class", "SOP Class", False),
    ModalityPerformedProcedureStepNotification: ("Modality Performed Procedure Step Notification SOP Class", "SOP Class", False),
    DetachedResultsManagement: ("Detached Results Management SOP Class", "SOP Class", True),
    DetachedInterpretationManagement: ("Detached Interpretation Management SOP Class", "SOP Class", True),
    BasicFilmSession: ("Basic Film Session SOP Class", "SOP Class", False),
    BasicFilmBox: ("Basic Film Box SOP Class", "SOP Class", False),
    BasicGrayscaleImageBox: ("Basic Grayscale Image Box SOP Class", "SOP Class", False),
    BasicColorImageBox: ("Basic Color Image Box SOP Class", "SOP Class", False),
    ReferencedImageBox: ("Referenced Image Box SOP Class", "SOP Class", True),
    PrintJob: ("Print Job SOP Class", "SOP Class", False),
    BasicAnnotationBox: ("Basic Annotation Box SOP Class", "SOP Class", False),
    Printer: ("Printer SOP Class", "SOP Class", False),
    PrinterConfigurationRetrieval: ("Printer Configuration Retrieval SOP Class", "SOP Class", False),
    VOILUTBox: ("VOI LUT Box SOP Class", "SOP Class", False),
    PresentationLUT: ("Presentation LUT SOP Class", "SOP Class", False),
    ImageOverlayBox: ("Image Overlay Box SOP Class", "SOP Class", True),
    BasicPrintImageOverlayBox: ("Basic Print Image Overlay Box SOP Class", "SOP Class", True),
    PrintQueueManagement: ("Print Queue Management SOP Class", "SOP Class", True),
    StoredPrintStorage: ("Stored Print Storage SOP Class", "SOP Class", True),
    HardcopyGrayscaleImageStorage: ("Hardcopy Grayscale Image Storage SOP Class", "SOP Class", True),
    HardcopyColorImageStorage: ("Hardcopy Color Image Storage SOP Class", "SOP Class", True),
    PullPrintRequest: ("Pull Print Request SOP Class", "SOP Class", True),
    MediaCreationManagement: ("Media Creation Management SOP Class UID", "SOP Class", False),
    DisplaySystem: ("Display System SOP Class", "SOP Class", False),
    ComputedRadiographyImageStorage: ("Computed Radiography Image Storage", "SOP Class", False),
    DigitalXRayImageStorageForPresentation: ("Digital X-Ray Image Storage - For Presentation", "SOP Class", False),
    DigitalXRayImageStorageForProcessing: ("Digital X-Ray Image Storage - For Processing", "SOP Class", False),
    DigitalMammographyXRayImageStorageForPresentation: ("Digital Mammography X-Ray Image Storage - For Presentation", "SOP Class", False),
    DigitalMammographyXRayImageStorageForProcessing: ("Digital Mammography X-Ray Image Storage - For Processing", "SOP Class", False),
    DigitalIntraOralXRayImageStorageForPresentation: ("Digital Intra-Oral X-Ray Image Storage - For Presentation", "SOP Class", False),
    DigitalIntraOralXRayImageStorageForProcessing: ("Digital Intra-Oral X-Ray Image Storage - For Processing", "SOP Class", False),
    CTImageStorage: ("CT Image Storage", "SOP Class", False),
    EnhancedCTImageStorage: ("Enhanced CT Image Storage", "SOP Class", False),
    LegacyConvertedEnhancedCTImageStorage: ("Legacy Converted Enhanced CT Image Storage", "SOP Class", False),
    UltrasoundMultiFrameImageStorageRetired: ("Ultrasound Multi-frame Image Storage", "SOP Class", True),
    UltrasoundMultiFrameImageStorage: ("Ultrasound Multi-frame Image Storage", "SOP Class", False),
    MRImageStorage: ("MR Image Storage", "SOP Class", False),
    EnhancedMRImageStorage: ("Enhanced MR Image Storage", "SOP Class", False),
    MRSpectroscopyStorage: ("MR Spectroscopy Storage", "SOP Class", False),
    EnhancedMRColorImageStorage: ("Enhanced MR Color Image Storage", "SOP Class", False),
    LegacyConvertedEnhancedMRImageStorage: ("Legacy Converted Enhanced MR Image Storage", "SOP Class", False),
    NuclearMedicineImageStorageRetired: ("Nuclear Medicine Image Storage", "SOP Class", True),
    UltrasoundImageStorageRetired: ("Ultrasound Image Storage", "SOP Class", True),
    UltrasoundImageStorage: ("Ultrasound Image Storage", "SOP Class", False),
    EnhancedUSVolumeStorage: ("Enhanced US Volume Storage", "SOP Class", False),
    PhotoacousticImageStorage: ("Photoacoustic Image Storage", "SOP Class", False),
    SecondaryCaptureImageStorage: ("Secondary Capture Image Storage", "SOP Class", False),
    MultiFrameSingleBitSecondaryCaptureImageStorage: ("Multi-frame Single Bit Secondary Capture Image Storage", "SOP Class", False),
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage: ("Multi-frame Grayscale Byte Secondary Capture Image Storage", "SOP Class", False),
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage: ("Multi-frame Grayscale Word Secondary Capture Image Storage", "SOP Class", False),
    MultiFrameTrueColorSecondaryCaptureImageStorage: ("Multi-frame True Color Secondary Capture Image Storage", "SOP Class", False),
    StandaloneOverlayStorage: ("Standalone Overlay Storage", "SOP Class", True),
    StandaloneCurveStorage: ("Standalone Curve Storage", "SOP Class", True),
    WaveformStorageTrial: ("Waveform Storage - Trial", "SOP Class", True),
    TwelveLeadECGWaveformStorage: ("12-lead ECG Waveform Storage", "SOP Class", False),
    GeneralECGWaveformStorage: ("General ECG Waveform Storage", "SOP Class", False),
    AmbulatoryECGWaveformStorage: ("Ambulatory ECG Waveform Storage", "SOP Class", False),
    General32bitECGWaveformStorage: ("General 32-bit ECG Waveform Storage", "SOP Class", False),
    HemodynamicWaveformStorage: ("Hemodynamic Waveform Storage", "SOP Class", False),
    CardiacElectrophysiologyWaveformStorage: ("Cardiac Electrophysiology Waveform Storage", "SOP Class", False),
    BasicVoiceAudioWaveformStorage: ("Basic Voice Audio Waveform Storage", "SOP Class", False),
    GeneralAudioWaveformStorage: ("General Audio Waveform Storage", "SOP Class", False),
    ArterialPulseWaveformStorage: ("Arterial Pulse Waveform Storage", "SOP Class", False),
    RespiratoryWaveformStorage: ("Respiratory Waveform Storage", "SOP Class", False),
    MultichannelRespiratoryWaveformStorage: ("Multi-channel Respiratory Waveform Storage", "SOP Class", False),
    RoutineScalpElectroencephalogramWaveformStorage: ("Routine Scalp Electroencephalogram Waveform Storage", "SOP Class", False),
    ElectromyogramWaveformStorage: ("Electromyogram Waveform Storage", "SOP Class", False),
    ElectrooculogramWaveformStorage: ("Electrooculogram Waveform Storage", "SOP Class", False),
    SleepElectroencephalogramWaveformStorage: ("Sleep Electroencephalogram Waveform Storage", "SOP Class", False),
    BodyPositionWaveformStorage: ("Body Position Waveform Storage", "SOP Class", False),
    WaveformPresentationStateStorage: ("Waveform Presentation State Storage", "SOP Class", False),
    WaveformAcquisitionPresentationStateStorage: ("Waveform Acquisition Presentation State Storage", "SOP Class", False),
    StandaloneModalityLUTStorage: ("Standalone Modality LUT Storage", "SOP Class", True),
    StandaloneVOILUTStorage: ("Standalone VOI LUT Storage", "SOP Class", True),
    GrayscaleSoftcopyPresentationStateStorage: ("Grayscale Softcopy Presentation State Storage", "SOP Class", False),
    ColorSoftcopyPresentationStateStorage: ("Color Softcopy Presentation State Storage", "SOP Class", False),
    PseudoColorSoftcopyPresentationStateStorage: ("Pseudo-Color Softcopy Presentation State Storage", "SOP Class", False),
    BlendingSoftcopyPresentationStateStorage: ("Blending Softcopy Presentation State Storage", "SOP Class", False),
    XAXRFGrayscaleSoftcopyPresentationStateStorage: ("XA/XRF Grayscale Softcopy Presentation State Storage", "SOP Class", False),
    GrayscalePlanarMPRVolumetricPresentationStateStorage: ("Grayscale Planar MPR Volumetric Presentation State Storage", "SOP Class", False),
    CompositingPlanarMPRVolumetricPresentationStateStorage: ("Compositing Planar MPR Volumetric Presentation State Storage", "SOP Class", False),
    AdvancedBlendingPresentationStateStorage: ("Advanced Blending Presentation State Storage", "SOP Class", False),
    VolumeRenderingVolumetricPresentationStateStorage: ("Volume Rendering Volumetric Presentation State Storage", "SOP Class", False),
    SegmentedVolumeRenderingVolumetricPresentationStateStorage: ("Segmented Volume Rendering Volumetric Presentation State Storage", "SOP Class", False),
    MultipleVolumeRenderingVolumetricPresentationStateStorage: ("Multiple Volume Rendering Volumetric Presentation State Storage", "SOP Class", False),
    VariableModalityLUTSoftcopyPresentationStateStorage: ("Variable Modality LUT Softcopy Presentation State Storage", "SOP Class", False),
    XRayAngiographicImageStorage: ("X-Ray Angiographic Image Storage", "SOP Class", False),
    EnhancedXAImageStorage: ("Enhanced XA Image Storage", "SOP Class", False),
    XRayRadiofluoroscopicImageStorage: ("X-Ray Radiofluoroscopic Image Storage", "SOP Class", False),
    EnhancedXRFImageStorage: ("Enhanced XRF Image Storage", "SOP Class", False),
    XRayAngiographicBiPlaneImageStorage: ("X-Ray Angiographic Bi-Plane Image Storage", "SOP Class", True),
    "1.2.840.10008.5.1.4.1.1.12.77": ("", "SOP Class", True),
    XRay3DAngiographicImageStorage: ("X-Ray 3D Angiographic Image Storage", "SOP Class", False),
    XRay3DCraniofacialImageStorage: ("X-Ray 3D Craniofacial Image Storage", "SOP Class", False),
    BreastTomosynthesisImageStorage: ("Breast Tomosynthesis Image Storage", "SOP Class", False),
    BreastProjectionXRayImageStorageForPresentation: ("Breast Projection X-Ray Image Storage - For Presentation", "SOP Class", False),
    BreastProjectionXRayImageStorageForProcessing: ("Breast Projection X-Ray Image Storage - For Processing", "SOP Class", False),
    IntravascularOpticalCoherenceTomographyImageStorageForPresentation: ("Intravascular Optical Coherence Tomography Image Storage - For Presentation", "SOP Class", False),
    IntravascularOpticalCoherenceTomographyImageStorageForProcessing: ("Intravascular Optical Coherence Tomography Image Storage - For Processing", "SOP Class", False),
    NuclearMedicineImageStorage: ("Nuclear Medicine Image Storage", "SOP Class", False),
    ParametricMapStorage: ("Parametric Map Storage", "SOP Class", False),
    "1.2.840.10008.5.1.4.1.1.40": ("", "SOP Class", True),
    RawDataStorage: ("Raw Data Storage", "SOP Class", False),
    SpatialRegistrationStorage: ("Spatial Registration Storage", "SOP Class", False),
    SpatialFiducialsStorage: ("Spatial Fiducials Storage", "SOP Class", False),
    DeformableSpatialRegistrationStorage: ("Deformable Spatial Registration Storage", "SOP Class", False),
    SegmentationStorage: ("Segmentation Storage", "SOP Class", False),
    SurfaceSegmentationStorage: ("Surface Segmentation Storage", "SOP Class", False),
    TractographyResultsStorage: ("Tractography Results Storage", "SOP Class", False),
    LabelMapSegmentationStorage: ("Label Map Segmentation Storage", "SOP Class", False),
    HeightMapSegmentationStorage: ("Height Map Segmentation Storage", "SOP Class", False),
    RealWorldValueMappingStorage: ("Real World Value Mapping Storage", "SOP Class", False),
    SurfaceScanMeshStorage: ("Surface Scan Mesh Storage", "SOP Class", False),
    SurfaceScanPointCloudStorage: ("Surface Scan Point Cloud Storage", "SOP Class", False),
    VLImageStorageTrial: ("VL Image Storage - Trial", "SOP Class", True),
    VLEndoscopicImageStorage: ("VL Endoscopic Image Storage", "SOP Class", False),
    VideoEndoscopicImageStorage: ("Video Endoscopic Image Storage", "SOP Class", False),
    VLMicroscopicImageStorage: ("VL Microscopic Image Storage", "SOP Class", False),
    VideoMicroscopicImageStorage: ("Video Microscopic Image Storage", "SOP Class", False),
    VLSlideCoordinatesMicroscopicImageStorage: ("VL Slide-Coordinates Microscopic Image Storage", "SOP Class", False),
    VLPhotographicImageStorage: ("VL Photographic Image Storage", "SOP Class", False),
    VideoPhotographicImageStorage: ("Video Photographic Image Storage", "SOP Class", False),
    OphthalmicPhotography8BitImageStorage: ("Ophthalmic Photography 8 Bit Image Storage", "SOP Class", False),
    OphthalmicPhotography16BitImageStorage: ("Ophthalmic Photography 16 Bit Image Storage", "SOP Class", False),
    StereometricRelationshipStorage: ("Stereometric Relationship Storage", "SOP Class", False),
    OphthalmicTomographyImageStorage: ("Ophthalmic Tomography Image Storage", "SOP Class", False),
    WideFieldOphthalmicPhotographyStereographicProjectionImageStorage: ("Wide Field Ophthalmic Photography Stereographic Projection Image Storage", "SOP Class", False),
    WideFieldOphthalmicPhotography3DCoordinatesImageStorage: ("Wide Field Ophthalmic Photography 3D Coordinates Image Storage", "SOP Class", False),
    OphthalmicOpticalCoherenceTomographyEnFaceImageStorage: ("Ophthalmic Optical Coherence Tomography En Face Image Storage", "SOP Class", False),
    OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage: ("Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage", "SOP Class", False),
    VLWholeSlideMicroscopyImageStorage: ("VL Whole Slide Microscopy Image Storage", "SOP Class", False),
    DermoscopicPhotographyImageStorage: ("Dermoscopic Photography Image Storage", "SOP Class", False),
    ConfocalMicroscopyImageStorage: ("Confocal Microscopy Image Storage", "SOP Class", False),
    ConfocalMicroscopyTiledPyramidalImageStorage: ("Confocal Microscopy Tiled Pyramidal Image Storage", "SOP Class", False),
    VLMultiFrameImageStorageTrial: ("VL Multi-frame Image Storage - Trial", "SOP Class", True),
    LensometryMeasurementsStorage: ("Lensometry Measurements Storage", "SOP Class", False),
    AutorefractionMeasurementsStorage: ("Autorefraction Measurements Storage", "SOP Class", False),
    KeratometryMeasurementsStorage: ("Keratometry Measurements Storage", "SOP Class", False),
    SubjectiveRefractionMeasurementsStorage: ("Subjective Refraction Measurements Storage", "SOP Class", False),
    VisualAcuityMeasurementsStorage: ("Visual Acuity Measurements Storage", "SOP Class", False),
    SpectaclePrescriptionReportStorage: ("Spectacle Prescription Report Storage", "SOP Class", False),
    OphthalmicAxialMeasurementsStorage: ("Ophthalmic Axial Measurements Storage", "SOP Class", False),
    IntraocularLensCalculationsStorage: ("Intraocular Lens Calculations Storage", "SOP Class", False),
    MacularGridThicknessAndVolumeReportStorage: ("Macular Grid Thickness and Volume Report Storage", "SOP Class", False),
    OphthalmicVisualFieldStaticPerimetryMeasurementsStorage: ("Ophthalmic Visual Field Static Perimetry Measurements Storage", "SOP Class", False),
    OphthalmicThicknessMapStorage: ("Ophthalmic Thickness Map Storage", "SOP Class", False),
    CornealTopographyMapStorage: ("Corneal Topography Map Storage", "SOP Class", False),
    TextSRStorageTrial: ("Text SR Storage - Trial", "SOP Class", True),
    AudioSRStorageTrial: ("Audio SR Storage - Trial", "SOP Class", True),
    DetailSRStorageTrial: ("Detail SR Storage - Trial", "SOP Class", True),
    ComprehensiveSRStorageTrial: ("Comprehensive SR Storage - Trial", "SOP Class", True),
    BasicTextSRStorage: ("Basic Text SR Storage", "SOP Class", False),
    EnhancedSRStorage: ("Enhanced SR Storage", "SOP Class", False),
    ComprehensiveSRStorage: ("Comprehensive SR Storage", "SOP Class", False),
    Comprehensive3DSRStorage: ("Comprehensive 3D SR Storage", "SOP Class", False),
    ExtensibleSRStorage: ("Extensible SR Storage", "SOP Class", False),
    ProcedureLogStorage: ("Procedure Log Storage", "SOP Class", False),
    MammographyCADSRStorage: ("Mammography CAD SR Storage", "SOP Class", False),
    KeyObjectSelectionDocumentStorage: ("Key Object Selection Document Storage", "SOP Class", False),
    ChestCADSRStorage: ("Chest CAD SR Storage", "SOP Class", False),
    XRayRadiationDoseSRStorage: ("X-Ray Radiation Dose SR Storage", "SOP Class", False),
    RadiopharmaceuticalRadiationDoseSRStorage: ("Radiopharmaceutical Radiation Dose SR Storage", "SOP Class", False),
    ColonCADSRStorage: ("Colon CAD SR Storage", "SOP Class", False),
    ImplantationPlanSRStorage: ("Implantation Plan SR Storage", "SOP Class", False),
    AcquisitionContextSRStorage: ("Acquisition Context SR Storage", "SOP Class", False),
    SimplifiedAdultEchoSRStorage: ("Simplified Adult Echo SR Storage", "SOP Class", False),
    PatientRadiationDoseSRStorage: ("Patient Radiation Dose SR Storage", "SOP Class", False),
    PlannedImagingAgentAdministrationSRStorage: ("Planned Imaging Agent Administration SR Storage", "SOP Class", False),
    PerformedImagingAgentAdministrationSRStorage: ("Performed Imaging Agent Administration SR Storage", "SOP Class", False),
    EnhancedXRayRadiationDoseSRStorage: ("Enhanced X-Ray Radiation Dose SR Storage", "SOP Class", False),
    WaveformAnnotationSRStorage: ("Waveform Annotation SR Storage", "SOP Class", False),
    ContentAssessmentResultsStorage: ("Content Assessment Results Storage", "SOP Class", False),
    MicroscopyBulkSimpleAnnotationsStorage: ("Microscopy Bulk Simple Annotations Storage", "SOP Class", False),
    EncapsulatedPDFStorage: ("Encapsulated PDF Storage", "SOP Class", False),
    EncapsulatedCDAStorage: ("Encapsulated CDA Storage", "SOP Class", False),
    EncapsulatedSTLStorage: ("Encapsulated STL Storage", "SOP Class", False),
    EncapsulatedOBJStorage: ("Encapsulated OBJ Storage", "SOP Class", False),
    EncapsulatedMTLStorage: ("Encapsulated MTL Storage", "SOP Class", False),
    PositronEmissionTomographyImageStorage: ("Positron Emission Tomography Image Storage", "SOP Class", False),
    LegacyConvertedEnhancedPETImageStorage: ("Legacy Converted Enhanced PET Image Storage", "SOP Class", False),
    StandalonePETCurveStorage: ("Standalone PET Curve Storage", "SOP Class", True),
    EnhancedPETImageStorage: ("Enhanced PET Image Storage", "SOP Class", False),
    BasicStructuredDisplayStorage: ("Basic Structured Display Storage", "SOP Class", False),
    CTDefinedProcedureProtocolStorage: ("CT Defined Procedure Protocol Storage", "SOP Class", False),
    CTPerformedProcedureProtocolStorage: ("CT Performed Procedure Protocol Storage", "SOP Class", False),
    ProtocolApprovalStorage: ("Protocol Approval Storage", "SOP Class", False),
    ProtocolApprovalInformationModelFind: ("Protocol Approval Information Model - FIND", "SOP Class", False),
    ProtocolApprovalInformationModelMove: ("Protocol Approval Information Model - MOVE", "SOP Class", False),
    ProtocolApprovalInformationModelGet: ("Protocol Approval Information Model - GET", "SOP Class", False),
    XADefinedProcedureProtocolStorage: ("XA Defined Procedure Protocol Storage", "SOP Class", False),
    XAPerformedProcedureProtocolStorage: ("XA Performed Procedure Protocol Storage", "SOP Class", False),
    InventoryStorage: ("Inventory Storage", "SOP Class", False),
    InventoryFind: ("Inventory - FIND", "SOP Class", False),
    InventoryMove: ("Inventory - MOVE", "SOP Class", False),
    InventoryGet: ("Inventory - GET", "SOP Class", False),
    InventoryCreation: ("Inventory Creation", "SOP Class", False),
    RepositoryQuery: ("Repository Query", "SOP Class", False),
    RTImageStorage: ("RT Image Storage", "SOP Class", False),
    RTDoseStorage: ("RT Dose Storage", "SOP Class", False),
    RTStructureSetStorage: ("RT Structure Set Storage", "SOP Class", False),
    RTBeamsTreatmentRecordStorage: ("RT Beams Treatment Record Storage", "SOP Class", False),
    RTPlanStorage: ("RT Plan Storage", "SOP Class", False),
    RTBrachyTreatmentRecordStorage: ("RT Brachy Treatment Record Storage", "SOP Class", False),
    RTTreatmentSummaryRecordStorage: ("RT Treatment Summary Record Storage", "SOP Class", False),
    RTIonPlanStorage: ("RT Ion Plan Storage", "SOP Class", False),
    RTIonBeamsTreatmentRecordStorage: ("RT Ion Beams Treatment Record Storage", "SOP Class", False),
    RTPhysicianIntentStorage: ("RT Physician Intent Storage", "SOP Class", False),
    RTSegmentAnnotationStorage: ("RT Segment Annotation Storage", "SOP Class", False),
    RTRadiationSetStorage: ("RT Radiation Set Storage", "SOP Class", False),
    CArmPhotonElectronRadiationStorage: ("C-Arm Photon-Electron Radiation Storage", "SOP Class", False),
    TomotherapeuticRadiationStorage: ("Tomotherapeutic Radiation Storage", "SOP Class", False),
    RoboticArmRadiationStorage: ("Robotic-Arm Radiation Storage", "SOP Class", False),
    RTRadiationRecordSetStorage: ("RT Radiation Record Set Storage", "SOP Class", False),
    RTRadiationSalvageRecordStorage: ("RT Radiation Salvage Record Storage", "SOP Class", False),
    TomotherapeuticRadiationRecordStorage: ("Tomotherapeutic Radiation Record Storage", "SOP Class", False),
    CArmPhotonElectronRadiationRecordStorage: ("C-Arm Photon-Electron Radiation Record Storage", "SOP Class", False),
    RoboticRadiationRecordStorage: ("Robotic Radiation Record Storage", "SOP Class", False),
    RTRadiationSetDeliveryInstructionStorage: ("RT Radiation Set Delivery Instruction Storage", "SOP Class", False),
    RTTreatmentPreparationStorage: ("RT Treatment Preparation Storage", "SOP Class", False),
    EnhancedRTImageStorage: ("Enhanced RT Image Storage", "SOP Class", False),
    EnhancedContinuousRTImageStorage: ("Enhanced Continuous RT Image Storage", "SOP Class", False),
    RTPatientPositionAcquisitionInstructionStorage: ("RT Patient Position Acquisition Instruction Storage", "SOP Class", False),
    DICOSCTImageStorage: ("DICOS CT Image Storage", "SOP Class", False),
    DICOSDigitalXRayImageStorageForPresentation: ("DICOS Digital X-Ray Image Storage - For Presentation", "SOP Class", False),
    DICOSDigitalXRayImageStorageForProcessing: ("DICOS Digital X-Ray Image Storage - For Processing", "SOP Class", False),
    DICOSThreatDetectionReportStorage: ("DICOS Threat Detection Report Storage", "SOP Class", False),
    DICOS2DAITStorage: ("DICOS 2D AIT Storage", "SOP Class", False),
    DICOS3DAITStorage: ("DICOS 3D AIT Storage", "SOP Class", False),
    DICOSQuadrupoleResonanceStorage: ("DICOS Quadrupole Resonance (QR) Storage", "SOP Class", False),
    EddyCurrentImageStorage: ("Eddy Current Image Storage", "SOP Class", False),
    EddyCurrentMultiFrameImageStorage: ("Eddy Current Multi-frame Image Storage", "SOP Class", False),
    ThermographyImageStorage: ("Thermography Image Storage", "SOP Class", False),
    ThermographyMultiFrameImageStorage: ("Thermography Multi-frame Image Storage", "SOP Class", False),
    UltrasoundWaveformStorage: ("Ultrasound Waveform Storage", "SOP Class", False),
    PatientRootQueryRetrieveInformationModelFind: ("Patient Root Query/Retrieve Information Model - FIND", "SOP Class", False),
    PatientRootQueryRetrieveInformationModelMove: ("Patient Root Query/Retrieve Information Model - MOVE", "SOP Class", False),
    PatientRootQueryRetrieveInformationModelGet: ("Patient Root Query/Retrieve Information Model - GET", "SOP Class", False),
    StudyRootQueryRetrieveInformationModelFind: ("Study Root Query/Retrieve Information Model - FIND", "SOP Class", False),
    StudyRootQueryRetrieveInformationModelMove: ("Study Root Query/Retrieve Information Model - MOVE", "SOP Class", False),
    StudyRootQueryRetrieveInformationModelGet: ("Study Root Query/Retrieve Information Model - GET", "SOP Class", False),
    PatientStudyOnlyQueryRetrieveInformationModelFind: ("Patient/Study Only Query/Retrieve Information Model - FIND", "SOP Class", True),
    PatientStudyOnlyQueryRetrieveInformationModelMove: ("Patient/Study Only Query/Retrieve Information Model - MOVE", "SOP Class", True),
    PatientStudyOnlyQueryRetrieveInformationModelGet: ("Patient/Study Only Query/Retrieve Information Model - GET", "SOP Class", True),
    CompositeInstanceRootRetrieveMove: ("Composite Instance Root Retrieve - MOVE", "SOP Class", False),
    CompositeInstanceRootRetrieveGet: ("Composite Instance Root Retrieve - GET", "SOP Class", False),
    CompositeInstanceRetrieveWithoutBulkDataGet: ("Composite Instance Retrieve Without Bulk Data - GET", "SOP Class", False),
    DefinedProcedureProtocolInformationModelFind: ("Defined Procedure Protocol Information Model - FIND", "SOP Class", False),
    DefinedProcedureProtocolInformationModelMove: ("Defined Procedure Protocol Information Model - MOVE", "SOP Class", False),
    DefinedProcedureProtocolInformationModelGet: ("Defined Procedure Protocol Information Model - GET", "SOP Class", False),
    ModalityWorklistInformationModelFind: ("Modality Worklist Information Model - FIND", "SOP Class", False),
    GeneralPurposeWorklistInformationModelFind: ("General Purpose Worklist Information Model - FIND", "SOP Class", True),
    GeneralPurposeScheduledProcedureStep: ("General Purpose Scheduled Procedure Step SOP Class", "SOP Class", True),
    GeneralPurposePerformedProcedureStep: ("General Purpose Performed Procedure Step SOP Class", "SOP Class", True),
    InstanceAvailabilityNotification: ("Instance Availability Notification SOP Class", "SOP Class", False),
    RTBeamsDeliveryInstructionStorageTrial: ("RT Beams Delivery Instruction Storage - Trial", "SOP Class", True),
    RTConventionalMachineVerificationTrial: ("RT Conventional Machine Verification - Trial", "SOP Class", True),
    RTIonMachineVerificationTrial: ("RT Ion Machine Verification - Trial", "SOP Class", True),
    UnifiedProcedureStepPushTrial: ("Unified Procedure Step - Push SOP Class - Trial", "SOP Class", True),
    UnifiedProcedureStepWatchTrial: ("Unified Procedure Step - Watch SOP Class - Trial", "SOP Class", True),
    UnifiedProcedureStepPullTrial: ("Unified Procedure Step - Pull SOP Class - Trial", "SOP Class", True),
    UnifiedProcedureStepEventTrial: ("Unified Procedure Step - Event SOP Class - Trial", "SOP Class", True),
    UnifiedProcedureStepPush: ("Unified Procedure Step - Push SOP Class", "SOP Class", False),
    UnifiedProcedureStepWatch: ("Unified Procedure Step - Watch SOP Class", "SOP Class", False),
    UnifiedProcedureStepPull: ("Unified Procedure Step - Pull SOP Class", "SOP Class", False),
    UnifiedProcedureStepEvent: ("Unified Procedure Step - Event SOP Class", "SOP Class", False),
    UnifiedProcedureStepQuery: ("Unified Procedure Step - Query SOP Class", "SOP Class", False),
    RTBeamsDeliveryInstructionStorage: ("RT Beams Delivery Instruction Storage", "SOP Class", False),
    RTConventionalMachineVerification: ("RT Conventional Machine Verification", "SOP Class", False),
    RTIonMachineVerification: ("RT Ion Machine Verification", "SOP Class", False),
    RTBrachyApplicationSetupDeliveryInstructionStorage: ("RT Brachy Application Setup Delivery Instruction Storage", "SOP Class", False),
    GeneralRelevantPatientInformationQuery: ("General Relevant Patient Information Query", "SOP Class", False),
    BreastImagingRelevantPatientInformationQuery: ("Breast Imaging Relevant Patient Information Query", "SOP Class", False),
    CardiacRelevantPatientInformationQuery: ("Cardiac Relevant Patient Information Query", "SOP Class", False),
    HangingProtocolStorage: ("Hanging Protocol Storage", "SOP Class", False),
    HangingProtocolInformationModelFind: ("Hanging Protocol Information Model - FIND", "SOP Class", False),
    HangingProtocolInformationModelMove: ("Hanging Protocol Information Model - MOVE", "SOP Class", False),
    HangingProtocolInformationModelGet: ("Hanging Protocol Information Model - GET", "SOP Class", False),
    ColorPaletteStorage: ("Color Palette Storage", "SOP Class", False),
    ColorPaletteQueryRetrieveInformationModelFind: ("Color Palette Query/Retrieve Information Model - FIND", "SOP Class", False),
    ColorPaletteQueryRetrieveInformationModelMove: ("Color Palette Query/Retrieve Information Model - MOVE", "SOP Class", False),
    ColorPaletteQueryRetrieveInformationModelGet: ("Color Palette Query/Retrieve Information Model - GET", "SOP Class", False),
    ProductCharacteristicsQuery: ("Product Characteristics Query SOP Class", "SOP Class", False),
    SubstanceApprovalQuery: ("Substance Approval Query SOP Class", "SOP Class", False),
    GenericImplantTemplateStorage: ("Generic Implant Template Storage", "SOP Class", False),
    GenericImplantTemplateInformationModelFind: ("Generic Implant Template Information Model - FIND", "SOP Class", False),
    GenericImplantTemplateInformationModelMove: ("Generic Implant Template Information Model - MOVE", "SOP Class", False),
    GenericImplantTemplateInformationModelGet: ("Generic Implant Template Information Model - GET", "SOP Class", False),
    ImplantAssemblyTemplateStorage: ("Implant Assembly Template Storage", "SOP Class", False),
    ImplantAssemblyTemplateInformationModelFind: ("Implant Assembly Template Information Model - FIND", "SOP Class", False),
    ImplantAssemblyTemplateInformationModelMove: ("Implant Assembly Template Information Model - MOVE", "SOP Class", False),
    ImplantAssemblyTemplateInformationModelGet: ("Implant Assembly Template Information Model - GET", "SOP Class", False),
    ImplantTemplateGroupStorage: ("Implant Template Group Storage", "SOP Class", False),
    ImplantTemplateGroupInformationModelFind: ("Implant Template Group Information Model - FIND", "SOP Class", False),
    ImplantTemplateGroupInformationModelMove: ("Implant Template Group Information Model - MOVE", "SOP Class", False),
    ImplantTemplateGroupInformationModelGet: ("Implant Template Group Information Model - GET", "SOP Class", False),
    VideoEndoscopicImageRealTimeCommunication: ("Video Endoscopic Image Real-Time Communication", "SOP Class", False),
    VideoPhotographicImageRealTimeCommunication: ("Video Photographic Image Real-Time Communication", "SOP Class", False),
    AudioWaveformRealTimeCommunication: ("Audio Waveform Real-Time Communication", "SOP Class", False),
    RenditionSelectionDocumentRealTimeCommunication: ("Rendition Selection Document Real-Time Communication", "SOP Class", False),
    DetachedPatientManagementMeta: ("Detached Patient Management Meta SOP Class", "Meta SOP Class", True),
    DetachedResultsManagementMeta: ("Detached Results Management Meta SOP Class", "Meta SOP Class", True),
    DetachedStudyManagementMeta: ("Detached Study Management Meta SOP Class", "Meta SOP Class", True),
    BasicGrayscalePrintManagementMeta: ("Basic Grayscale Print Management Meta SOP Class", "Meta SOP Class", False),
    ReferencedGrayscalePrintManagementMeta: ("Referenced Grayscale Print Management Meta SOP Class", "Meta SOP Class", True),
    BasicColorPrintManagementMeta: ("Basic Color Print Management Meta SOP Class", "Meta SOP Class", False),
    ReferencedColorPrintManagementMeta: ("Referenced Color Print Management Meta SOP Class", "Meta SOP Class", True),
    PullStoredPrintManagementMeta: ("Pull Stored Print Management Meta SOP Class", "Meta SOP Class", True),
    GeneralPurposeWorklistManagementMeta: ("General Purpose Worklist Management Meta SOP Class", "Meta SOP Class", True),
    Storage: ("Storage Service Class", "Service Class", False),
    UnifiedWorklistAndProcedureStepTrial: ("Unified Worklist and Procedure Step Service Class - Trial", "Service Class", True),
    UnifiedWorklistAndProcedureStep: ("Unified Worklist and Procedure Step Service Class", "Service Class", False),
    HotIronPalette: ("Hot Iron Color Palette SOP Instance", "Well-known SOP Instance", False),
    PETPalette: ("PET Color Palette SOP Instance", "Well-known SOP Instance", False),
    HotMetalBluePalette: ("Hot Metal Blue Color Palette SOP Instance", "Well-known SOP Instance", False),
    PET20StepPalette: ("PET 20 Step Color Palette SOP Instance", "Well-known SOP Instance", False),
    SpringPalette: ("Spring Color Palette SOP Instance", "Well-known SOP Instance", False),
    SummerPalette: ("Summer Color Palette SOP Instance", "Well-known SOP Instance", False),
    FallPalette: ("Fall Color Palette SOP Instance", "Well-known SOP Instance", False),
    WinterPalette: ("Winter Color Palette SOP Instance", "Well-known SOP Instance", False),
    StorageCommitmentPushModelInstance: ("Storage Commitment Push Model SOP Instance", "Well-known SOP Instance", False),
    StorageCommitmentPullModelInstance: ("Storage Commitment Pull Model SOP Instance", "Well-known SOP Instance", True),
    ProceduralEventLoggingInstance: ("Procedural Event Logging SOP Instance", "Well-known SOP Instance", False),
    SubstanceAdministrationLoggingInstance: ("Substance Administration Logging SOP Instance", "Well-known SOP Instance", False),
    PrinterInstance: ("Printer SOP Instance", "Well-known SOP Instance", False),
    PrinterConfigurationRetrievalInstance: ("Printer Configuration Retrieval SOP Instance", "Well-known SOP Instance", False),
    PrintQueueInstance: ("Print Queue SOP Instance", "Well-known SOP Instance", True),
    DisplaySystemInstance: ("Display System SOP Instance", "Well-known SOP Instance", False),
    StorageManagementInstance: ("Storage Management SOP Instance", "Well-known SOP Instance", False),
    UPSGlobalSubscriptionInstance: ("UPS Global Subscription SOP Instance", "Well-known SOP Instance", False),
    UPSFilteredGlobalSubscriptionInstance: ("UPS Filtered Global Subscription SOP Instance", "Well-known SOP Instance", False),
    ImplicitVRLittleEndian: ("Implicit VR Little Endian", "Transfer Syntax", False),
    ExplicitVRLittleEndian: ("Explicit VR Little Endian", "Transfer Syntax", False),
    EncapsulatedUncompressedExplicitVRLittleEndian: ("Encapsulated Uncompressed Explicit VR Little Endian", "Transfer Syntax", False),
    DeflatedExplicitVRLittleEndian: ("Deflated Explicit VR Little Endian", "Transfer Syntax", False),
    ExplicitVRBigEndian: ("Explicit VR Big Endian", "Transfer Syntax", True),
    JPEGBaseline8Bit: ("JPEG Baseline (Process 1)", "Transfer Syntax", False),
    JPEGExtended12Bit: ("JPEG Extended (Process 2 and 4)", "Transfer Syntax", False),
    JPEGExtended35: ("JPEG Extended (Process 3 and 5)", "Transfer Syntax", True),
    JPEGSpectralSelectionNonHierarchical68: ("JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)", "Transfer Syntax", True),
    JPEGSpectralSelectionNonHierarchical79: ("JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)", "Transfer Syntax", True),
    JPEGFullProgressionNonHierarchical1012: ("JPEG Full Progression, Non-Hierarchical (Process 10 and 12)", "Transfer Syntax", True),
    JPEGFullProgressionNonHierarchical1113: ("JPEG Full Progression, Non-Hierarchical (Process 11 and 13)", "Transfer Syntax", True),
    JPEGLossless: ("JPEG Lossless, Non-Hierarchical (Process 14)", "Transfer Syntax", False),
    JPEGLosslessNonHierarchical15: ("JPEG Lossless, Non-Hierarchical (Process 15)", "Transfer Syntax", True),
    JPEGExtendedHierarchical1618: ("JPEG Extended, Hierarchical (Process 16 and 18)", "Transfer Syntax", True),
    JPEGExtendedHierarchical1719: ("JPEG Extended, Hierarchical (Process 17 and 19)", "Transfer Syntax", True),
    JPEGSpectralSelectionHierarchical2022: ("JPEG Spectral Selection, Hierarchical (Process 20 and 22)", "Transfer Syntax", True),
    JPEGSpectralSelectionHierarchical2123: ("JPEG Spectral Selection, Hierarchical (Process 21 and 23)", "Transfer Syntax", True),
    JPEGFullProgressionHierarchical2426: ("JPEG Full Progression, Hierarchical (Process 24 and 26)", "Transfer Syntax", True),
    JPEGFullProgressionHierarchical2527: ("JPEG Full Progression, Hierarchical (Process 25 and 27)", "Transfer Syntax", True),
    JPEGLosslessHierarchical28: ("JPEG Lossless, Hierarchical (Process 28)", "Transfer Syntax", True),
    JPEGLosslessHierarchical29: ("JPEG Lossless, Hierarchical (Process 29)", "Transfer Syntax", True),
    JPEGLosslessSV1: ("JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])", "Transfer Syntax", False),
    JPEGLSLossless: ("JPEG-LS Lossless Image Compression", "Transfer Syntax", False),
    JPEGLSNearLossless: ("JPEG-LS Lossy (Near-Lossless) Image Compression", "Transfer Syntax", False),
    JPEG2000Lossless: ("JPEG 2000 Image Compression (Lossless Only)", "Transfer Syntax", False),
    JPEG2000: ("JPEG 2000 Image Compression", "Transfer Syntax", False),
    JPEG2000MCLossless: ("JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)", "Transfer Syntax", False),
    JPEG2000MC: ("JPEG 2000 Part 2 Multi-component Image Compression", "Transfer Syntax", False),
    JPIPReferenced: ("JPIP Referenced", "Transfer Syntax", False),
    JPIPReferencedDeflate: ("JPIP Referenced Deflate", "Transfer Syntax", False),
    MPEG2MPML: ("MPEG2 Main Profile / Main Level", "Transfer Syntax", False),
    MPEG2MPMLF: ("Fragmentable MPEG2 Main Profile / Main Level", "Transfer Syntax", False),
    MPEG2MPHL: ("MPEG2 Main Profile / High Level", "Transfer Syntax", False),
    MPEG2MPHLF: ("Fragmentable MPEG2 Main Profile / High Level", "Transfer Syntax", False),
    MPEG4HP41: ("MPEG-4 AVC/H.264 High Profile / Level 4.1", "Transfer Syntax", False),
    MPEG4HP41F: ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", "Transfer Syntax", False),
    MPEG4HP41BD: ("MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "Transfer Syntax", False),
    MPEG4HP41BDF: ("Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "Transfer Syntax", False),
    MPEG4HP422D: ("MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", "Transfer Syntax", False),
    MPEG4HP422DF: ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", "Transfer Syntax", False),
    MPEG4HP423D: ("MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", "Transfer Syntax", False),
    MPEG4HP423DF: ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", "Transfer Syntax", False),
    MPEG4HP42STEREO: ("MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "Transfer Syntax", False),
    MPEG4HP42STEREOF: ("Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "Transfer Syntax", False),
    HEVCMP51: ("HEVC/H.265 Main Profile / Level 5.1", "Transfer Syntax", False),
    HEVCM10P51: ("HEVC/H.265 Main 10 Profile / Level 5.1", "Transfer Syntax", False),
    JPEGXLLossless: ("JPEG XL Lossless", "Transfer Syntax", False),
    JPEGXLJPEGRecompression: ("JPEG XL JPEG Recompression", "Transfer Syntax", False),
    JPEGXL: ("JPEG XL", "Transfer Syntax", False),
    HTJ2KLossless: ("High-Throughput JPEG 2000 Image Compression (Lossless Only)", "Transfer Syntax", False),
    HTJ2KLosslessRPCL: ("High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)", "Transfer Syntax", False),
    HTJ2K: ("High-Throughput JPEG 2000 Image Compression", "Transfer Syntax", False),
    JPIPHTJ2KReferenced: ("JPIP HTJ2K Referenced", "Transfer Syntax", False),
    JPIPHTJ2KReferencedDeflate: ("JPIP HTJ2K Referenced Deflate", "Transfer Syntax", False),
    RLELossless: ("RLE Lossless", "Transfer Syntax", False),
    RFC2557MIMEEncapsulation: ("RFC 2557 MIME encapsulation", "Transfer Syntax", True),
    XMLEncoding: ("XML Encoding", "Transfer Syntax", True),
    SMPTEST211020UncompressedProgressiveActiveVideo: ("SMPTE ST 2110-20 Uncompressed Progressive Active Video", "Transfer Syntax", False),
    SMPTEST211020UncompressedInterlacedActiveVideo: ("SMPTE ST 2110-20 Uncompressed Interlaced Active Video", "Transfer Syntax", False),
    SMPTEST211030PCMDigitalAudio: ("SMPTE ST 2110-30 PCM Digital Audio", "Transfer Syntax", False),
    DeflatedImageFrameCompression: ("Deflated Image Frame Compression", "Transfer Syntax", False),
    Papyrus3ImplicitVRLittleEndian: ("Papyrus 3 Implicit VR Little Endian", "Transfer Syntax", True),
}
