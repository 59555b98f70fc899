package consent

import "slices"

// Term is a purpose of the W3C Data Privacy Vocabulary, version 2, by its local name.
type Term string

// Namespace is what the IRI of a term begins with.
const Namespace = "https://w3id.org/dpv#"

// IRI is the term's full name.
func (t Term) IRI() string { return Namespace + string(t) }

// Valid reports whether the term is in the list. The list is fixed: a document is valid for ever or never.
func (t Term) Valid() bool { _, ok := slices.BinarySearch(terms, t); return ok }

// Terms lists them, by name.
func Terms() []Term { return slices.Clone(terms) }

var terms = []Term{
	"AcademicResearch", "AccountManagement", "Advertising", "AgeVerification", "CommercialPurpose", "CommercialResearch", "CommunicationForCustomerCare",
	"CommunicationManagement", "CounterMoneyLaundering", "CustomerCare", "CustomerClaimsManagement", "CustomerManagement", "CustomerOrderManagement",
	"CustomerRelationshipManagement", "CustomerSolvencyMonitoring", "DataAltruism", "DeliveryOfGoods", "DirectMarketing", "DisputeManagement", "EnforceAccessControl",
	"EnforceSecurity", "EstablishContractualAgreement", "FraudPreventionAndDetection", "FulfilmentOfContractualObligation", "FulfilmentOfObligation",
	"HumanResourceManagement", "IdentityAuthentication", "ImproveHealthcare", "ImprovePublicServices", "LegalCompliance", "Marketing", "MemberPartnerManagement",
	"MisusePreventionAndDetection", "NonCommercialPurpose", "NonCommercialResearch", "OrganisationComplianceManagement", "OrganisationGovernance",
	"OrganisationRiskManagement", "PaymentManagement", "Personalisation", "PersonalisedAdvertising", "PersonnelHiring", "PersonnelManagement", "PublicBenefit",
	"PublicRelations", "RecordManagement", "RequestedServiceProvision", "ResearchAndDevelopment", "ScientificResearch", "SellDataToThirdParties", "SellProducts",
	"ServiceOptimisation", "ServicePersonalisation", "ServiceProvision", "ServiceRegistration", "ServiceUsageAnalytics", "SocialMediaMarketing",
	"TechnicalServiceProvision", "VendorManagement", "VendorPayment", "Verification",
}
