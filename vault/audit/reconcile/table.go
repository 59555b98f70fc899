package reconcile

// A Rule says which entry of the key-use log stands for a function of PKCS#11, or why none does.
type Rule struct {
	Function string `json:"function"`
	Use      string `json:"use"`   // what Sallyport calls it for
	Entry    string `json:"entry"` // the entry that stands for it, or "none: " and why
	Luna     string `json:"luna,omitzero"`
	YubiHSM2 string `json:"yubihsm2,omitzero"`
	NShield  string `json:"nshield,omitzero"`
}

// Table has a rule for each function and use. A function that is not in it is never called; if it is, and uses a key, it is reported.
func Table() []Rule {
	const (
		session  = "none: a session holds no key"
		searches = "none: finds objects, does not use them"
	)
	return []Rule{
		{Function: "C_Initialize", Use: "a token worker starts", Entry: "none: workers come and go; `start` is the vault's"},
		{Function: "C_Finalize", Use: "a token worker ends", Entry: "none: as C_Initialize; without it what was asked last may have been asked twice"},
		{Function: "C_GetSlotList", Use: "opening the token", Entry: searches},
		{Function: "C_GetTokenInfo", Use: "opening the token", Entry: searches},
		{Function: "C_GetMechanismList", Use: "ceremony and full probe", Entry: searches},
		{Function: "C_InitToken", Use: "ceremony", Entry: "none: before the log; after its first entry it is reported", Luna: "LUNA_PARTITION_INIT", YubiHSM2: "RESET DEVICE", NShield: "InitialiseUnit"},
		{Function: "C_InitPIN", Use: "ceremony", Entry: "none: before the log; after its first entry it is reported", Luna: "LUNA_INIT_PIN", YubiHSM2: "PUT AUTHENTICATION KEY"},
		{Function: "C_OpenSession", Use: "opening the token; replacing a broken session; looking afresh at what was made", Entry: session, Luna: "LUNA_OPEN_SESSION"},
		{Function: "C_CloseSession", Use: "as C_OpenSession", Entry: session, Luna: "LUNA_CLOSE_SESSION"},
		{Function: "C_Login", Use: "opening the token", Entry: session, Luna: "LUNA_LOGIN"},
		{Function: "C_Logout", Use: "closing the token", Entry: session, Luna: "LUNA_LOGOUT"},
		{Function: "C_FindObjectsInit", Use: "finding keys and the signer's state", Entry: searches},
		{Function: "C_FindObjects", Use: "as C_FindObjectsInit", Entry: searches},
		{Function: "C_FindObjectsFinal", Use: "as C_FindObjectsInit", Entry: searches},
		{Function: "C_GetAttributeValue", Use: "reading attributes back; reading a derived value", Entry: "none: what it reads is not secret, or came from a C_DeriveKey that has its entry"},
		{Function: "C_SetAttributeValue", Use: "full probe, on throw-away keys", Entry: "none: on any other key it is reported", Luna: "LUNA_MODIFY_OBJECT"},
		{Function: "C_CopyObject", Use: "full probe, on throw-away keys", Entry: "none: on any other key it is reported"},
		{Function: "C_CreateObject", Use: "the signer's state: at start, stop and every minute", Entry: "none: it holds no key; any other object that stays is reported", Luna: "LUNA_CREATE_OBJECT", YubiHSM2: "PUT OPAQUE"},
		{Function: "C_DestroyObject", Use: "a re-encryption key, custody resident", Entry: "`destroyed`, one for each item; after a failed import `failed`", Luna: "LUNA_DESTROY_OBJECT", YubiHSM2: "DELETE OBJECT", NShield: "Destroy"},
		{Function: "C_DestroyObject", Use: "a sealing key", Entry: "`sealing`"},
		{Function: "C_DestroyObject", Use: "derived values, loaded sealed keys, the older states, canaries", Entry: "none: nothing that stays ends with them"},
		{Function: "C_GenerateKeyPair", Use: "the canary of a worker, the throw-away keys of probes", Entry: "none: a key pair that ends with its session", Luna: "LUNA_GENERATE_KEY_PAIR", YubiHSM2: "GENERATE ASYMMETRIC KEY", NShield: "GenerateKeyPair"},
		{Function: "C_GenerateKeyPair", Use: "ceremony: import keys and log key", Entry: "none: before the log, in the ceremony's transcript; after its first entry it is reported"},
		{Function: "C_GenerateKey", Use: "ceremony: store key", Entry: "none: before the log, in the ceremony's transcript; after its first entry it is reported", Luna: "LUNA_GENERATE_KEY", YubiHSM2: "GENERATE WRAP KEY", NShield: "GenerateKey"},
		{Function: "C_GenerateKey", Use: "a sealing key, by the security officer", Entry: "none: it is in the transcript; `sealing` stands for the end of the one before"},
		{Function: "C_UnwrapKey", Use: "an import, custody resident: under its import key", Entry: "`import`, one for each field of the grant", Luna: "LUNA_UNWRAP_KEY", YubiHSM2: "IMPORT RSA WRAPPED KEY", NShield: "DeriveKey"},
		{Function: "C_UnwrapKey", Use: "an import, custody sealed: under its import key, and back under the sealing key", Entry: "`import`, two for each field"},
		{Function: "C_UnwrapKey", Use: "loading a sealed key into a worker", Entry: "`use`: one at most for each, since keys stay loaded"},
		{Function: "C_UnwrapKey", Use: "moving a sealed key: under the old sealing key, and back under the newest", Entry: "`sealing`, two for each key that it counts"},
		{Function: "C_WrapKey", Use: "an import, custody sealed: under the newest sealing key", Entry: "`import`, one for each field", Luna: "LUNA_WRAP_KEY", YubiHSM2: "EXPORT WRAPPED", NShield: "DeriveKey"},
		{Function: "C_WrapKey", Use: "moving a sealed key", Entry: "`sealing`, one for each key that it counts"},
		{Function: "C_DeriveKey", Use: "re-encryption", Entry: "`use` with the outcome released, one each; a `failed` that names it may take it back", Luna: "LUNA_DERIVE_KEY", YubiHSM2: "DERIVE ECDH", NShield: "DeriveKey"},
		{Function: "C_DeriveKey", Use: "canaries, on the generator of the curve: is this key one that works, and the same that came in?", Entry: "`import`, two for each field; `sealing`, two for each key moved"},
		{Function: "C_DeriveKey", Use: "before a key's end, on the generator of the curve: is this the key that was granted?", Entry: "`destroyed`, one for each item in custody resident; one for every key of the token if its `note` says that a key was missing or under another name"},
		{Function: "C_DeriveKey", Use: "the canary of a worker, and the light probe of each start, with a session key pair", Entry: "none: no re-encryption key is in it; the findings are in `start`"},
		{Function: "C_SignInit", Use: "see C_Sign", Entry: "none: C_Sign is what signs", Luna: "LUNA_SIGN_INIT"},
		{Function: "C_Sign", Use: "a checkpoint of the key-use log", Entry: "one for each commit, which covers one entry or many: what was signed must be a beginning of this log, and cover all of it", Luna: "LUNA_SIGN_SINGLEPART", YubiHSM2: "SIGN EDDSA", NShield: "Sign"},
		{Function: "C_SignRecoverInit", Use: "full probe, on throw-away keys", Entry: "none: C_SignRecover is what signs"},
		{Function: "C_SignRecover", Use: "full probe, on throw-away keys", Entry: "none: on any other key it is reported"},
		{Function: "C_EncryptInit", Use: "see C_Encrypt", Entry: "none: C_Encrypt is what encrypts", Luna: "LUNA_ENCRYPT_INIT"},
		{Function: "C_Encrypt", Use: "ceremony: sealing the vault's secrets under the store key", Entry: "none: before the log; after its first entry it is reported", Luna: "LUNA_ENCRYPT_SINGLEPART", YubiHSM2: "ENCRYPT AES CBC", NShield: "Encrypt"},
		{Function: "C_DecryptInit", Use: "see C_Decrypt", Entry: "none: C_Decrypt is what decrypts", Luna: "LUNA_DECRYPT_INIT"},
		{Function: "C_Decrypt", Use: "opening the vault's secrets with the store key, whenever the token is opened", Entry: "none: no re-encryption key is in it; `start` follows if the vault starts", Luna: "LUNA_DECRYPT_SINGLEPART", YubiHSM2: "DECRYPT AES CBC", NShield: "Decrypt"},
	}
}
