package vectors

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
)

// The time of the vectors, Unix seconds.
const theTime = 1800000000

func header(docType string) policies.Header {
	return policies.Header{Type: docType, Suite: policies.Suite, ID: policies.DocumentID(fixed(docType+" document id", 32)), Time: theTime}
}

func payloadOf(doc any) []byte { return must(json.Marshal(doc, json.Deterministic(true))) }

func theManifest() []byte {
	return payloadOf(policies.Manifest{Header: header("manifest"), Audience: policies.VaultID(vaultID), Owner: policies.OwnerID(ownerID), Author: policies.AuthorID(ownerID),
		Link: policies.Link{Seq: 5, Prev: policies.Hash(fixed("link before", 32))}, Version: 2, PrevManifest: policies.Hash(fixed("manifest before", 32)), TreeSize: 7, Root: policies.Hash(fixed("root", 32))})
}

func compositeFile() File {
	f := File{Name: "composite-signature.json",
		What:      "id-MLDSA65-Ed25519-SHA512 (draft-ietf-lamps-pq-composite-sigs) as documents use it: message = PAE of the envelope, context = sallyport/v1/<type>, M' = Prefix || Label || u8 length of the context || context || SHA-512(message). Signature: ML-DSA-65 (3,309 bytes; of M', context = Label) || Ed25519 (64; of M'). Key: ML-DSA-65 (1,952) || Ed25519 (32). Seed: ML-DSA-65 (32) || Ed25519 (32).",
		Implement: "Verify both parts. The ML-DSA part here is the deterministic variant of FIPS 204, so that it can be reproduced; real ones are hedged."}
	s, other := newSigner("composite signer"), newSigner("another signer")
	payload := []byte(`{"type":"manifest"}`)
	message := pae("manifest", payload)
	const context = "sallyport/v1/manifest"
	sig := s.sign(context, message)
	mPrime := representative(context, message)
	in := map[string]any{"seed": s.seed, "public": s.pub, "type": "manifest", "payload": payload, "signature": sig}
	f.add("a signature", "composite-verify", "ok", in, map[string]any{"message": message, "representative": mPrime})
	bad := func(name string, changes ...any) {
		f.add(name, "composite-verify", "signature", with(in, changes...), nil)
	}
	cut, otherSig := len(sig)-64, other.sign(context, message)
	bad("another payload", "payload", []byte(`{"type":"manifest" }`))
	bad("another type", "type", "grant")
	bad("another context", "signature", s.sign("sallyport/v1/grant", message))
	bad("no context", "signature", s.sign("", message))
	bad("flipped bit in the ML-DSA part", "signature", flip(sig, 100))
	bad("flipped bit in the Ed25519 part", "signature", flip(sig, -1))
	bad("ML-DSA part by another key", "signature", slices.Concat(otherSig[:cut], sig[cut:]))
	bad("Ed25519 part by another key", "signature", slices.Concat(sig[:cut], otherSig[cut:]))
	bad("Ed25519 part first", "signature", slices.Concat(sig[cut:], sig[:cut]))
	bad("ML-DSA part without the label as context", "signature", slices.Concat(s.mldsaSign(mPrime, nil), sig[cut:]))
	bad("component keys used alone, on the message itself", "signature", slices.Concat(s.mldsaSign(message, nil), ed25519.Sign(s.ed, message)))
	bad("ML-DSA part of zeroes", "signature", slices.Concat(make([]byte, cut), sig[cut:]))
	bad("Ed25519 part of zeroes", "signature", slices.Concat(sig[:cut], make([]byte, 64)))
	bad("Ed25519 part alone", "signature", sig[cut:])
	bad("ML-DSA part alone", "signature", sig[:cut])
	bad("cut by one byte", "signature", sig[:len(sig)-1])
	bad("one byte more", "signature", append(slices.Clone(sig), 0))
	wrongKey := with(in, "public", slices.Concat(other.pub[:1952], s.pub[1952:]))
	delete(wrongKey, "seed")
	f.add("key with another ML-DSA part", "composite-verify", "signature", wrongKey, nil)
	wrongKey = with(wrongKey, "public", slices.Concat(s.pub[:1952], other.pub[1952:]))
	f.add("key with another Ed25519 part", "composite-verify", "signature", wrongKey, nil)
	f.add("key cut", "composite-verify", "malformed", with(wrongKey, "public", s.pub[:1983]), nil)
	return f
}

func dsseFile() File {
	f := File{Name: "dsse.json",
		What:      "Envelopes: DSSE protocol 1 with payloadType application/vnd.sallyport.<type>.v1+json, exactly one signature, strict JSON. A document's hash is SHA-256(PAE).",
		Implement: "Read the envelope strictly, verify under public, decode the payload strictly as a manifest; give type, payload and hash. keyid is a hint: nothing depends on it."}
	s := newSigner("composite signer")
	payload := theManifest()
	env := s.envelope("manifest", payload)
	ok := func(name, env string, payload []byte) {
		f.add(name, "envelope", "ok", map[string]any{"public": s.pub, "envelope": env}, map[string]any{"type": "manifest", "payload": string(payload), "hash": paeHash("manifest", payload)})
	}
	ok("an envelope", env, payload)
	ok("another keyid: the same hash", replace(env, `"keyid":"hint"`, `"keyid":"x"`), payload)
	ok("no keyid: the same hash", replace(env, `"keyid":"hint",`, ``), payload)
	ok("white space around the members: the same hash", replace(env, `,"payload"`, ` , "payload"`), payload)
	spaced := append([]byte(" "), payload...)
	ok("white space in the payload: another document", s.envelope("manifest", spaced), spaced)
	bad := func(name, expect, env string) {
		f.add(name, "envelope", expect, map[string]any{"public": s.pub, "envelope": env}, nil)
	}
	sigMember := env[strings.Index(env, `{"keyid"`) : len(env)-2]
	bad("two signatures, both good", "malformed", replace(env, sigMember, sigMember+","+sigMember))
	bad("no signature", "malformed", replace(env, sigMember, ""))
	bad("unknown member", "malformed", replace(env, `"signatures"`, `"x":1,"signatures"`))
	bad("unknown member of a signature", "malformed", replace(env, `"keyid":"hint"`, `"keyid":"hint","x":1`))
	bad("payloadType twice", "malformed", replace(env, `,"payload":`, `,"payloadType":"application/vnd.sallyport.manifest.v1+json","payload":`))
	bad("member in another case", "malformed", replace(env, `"signatures"`, `"Signatures"`))
	bad("bytes after the value", "malformed", env+"{}")
	bad("text after the value", "malformed", env+"x")
	bad("cut", "malformed", env[:len(env)-1])
	bad("nothing", "malformed", "")
	bad("null", "malformed", "null")
	bad("an array", "malformed", "["+env+"]")
	b64 := base64.StdEncoding.EncodeToString(payload)
	bad("payload in base64url without padding", "malformed", replace(env, b64, base64.RawURLEncoding.EncodeToString(append(payload, ' '))))
	bad("payload with a line break inside the base64", "malformed", replace(env, b64, b64[:8]+`\n`+b64[8:]))
	bad("no payload", "malformed", replace(env, b64, ""))
	bad("payloadType of another application", "malformed", replace(env, "vnd.sallyport.", "vnd.example."))
	bad("payloadType of another version", "malformed", replace(env, ".v1+json", ".v2+json"))
	bad("payloadType without type", "malformed", replace(env, "sallyport.manifest.v1", "sallyport..v1"))
	bad("payloadType of another type: it is part of what is signed", "signature", replace(env, "sallyport.manifest.v1", "sallyport.grant.v1"))
	other := bytes.Replace(payload, []byte(`"type":"manifest"`), []byte(`"type":"grant"`), 1)
	bad("the payload calls itself another type", "malformed", s.envelope("manifest", other))
	bad("another payload under the same signature", "signature", replace(env, b64, base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(`"version":2`), []byte(`"version":3`), 1))))
	bad("signed by another key", "signature", newSigner("another signer").envelope("manifest", payload))
	f.add("invalid UTF-8 in the keyid", "envelope", "malformed", map[string]any{"public": s.pub, "envelope_hex": []byte(replace(env, "hint", "\xff"))}, nil)
	return f
}

// replace changes exactly one place.
func replace(s, from, to string) string {
	if strings.Count(s, from) != 1 {
		panic(fmt.Sprintf("%q occurs %d times", from, strings.Count(s, from)))
	}
	return strings.Replace(s, from, to, 1)
}

// documentFile has one signed document, refusals of its signature, and refusals of payloads.
func documentFile(docType, what string, doc any, signature func(payload []byte) (public []byte, env string), edits ...[3]string) File {
	f := File{Name: "document-" + docType + ".json",
		What:      "Documents of type " + docType + ": " + what,
		Implement: "document: read the envelope, verify under public (an Ed25519 key of 32 bytes for requests for reads and evidence, else composite), decode strictly, check the form; hash is SHA-256(PAE). payload: decode and check a payload alone."}
	payload := payloadOf(doc)
	public, env := signature(payload)
	in := map[string]any{"type": docType, "public": public, "envelope": env}
	f.add("a "+docType, "document", "ok", in, map[string]any{"payload": string(payload), "hash": paeHash(docType, payload)})
	changed := strings.Replace(string(payload), fmt.Sprint(theTime), fmt.Sprint(theTime+1), 1)
	b64 := base64.StdEncoding.EncodeToString
	f.add("another payload under the same signature", "document", "signature", with(in, "envelope", replace(env, b64(payload), b64([]byte(changed)))), nil)
	sigAt := strings.Index(env, `"sig":"`) + len(`"sig":"`)
	flipped := byte('A')
	if env[sigAt] == 'A' {
		flipped = 'B'
	}
	f.add("flipped bit in the signature", "document", "signature", with(in, "envelope", env[:sigAt]+string(flipped)+env[sigAt+1:]), nil)
	f.add("the payload alone", "payload", "ok", map[string]any{"type": docType, "payload": string(payload)}, map[string]any{})
	bad := func(name, text string) {
		f.add(name, "payload", "malformed", map[string]any{"type": docType, "payload": text}, nil)
	}
	p := string(payload)
	id := hex.EncodeToString(fixed(docType+" document id", 32))
	bad("unknown member", p[:len(p)-1]+`,"x":1}`)
	bad("suite twice", p[:len(p)-1]+`,"suite":"SP1"}`)
	bad("suite in another case", replace(p, `"suite"`, `"Suite"`))
	bad("suite not known", replace(p, `"suite":"SP1"`, `"suite":"SP2"`))
	bad("no suite", replace(p, `"suite":"SP1",`, ``))
	bad("another type", replace(p, `"type":"`+docType+`"`, `"type":"other"`))
	bad("no type", replace(p, `"type":"`+docType+`"`, `"type":""`))
	bad("id of zeroes", replace(p, id, strings.Repeat("0", 64)))
	bad("id in upper case", replace(p, id, strings.ToUpper(id)))
	bad("id cut", replace(p, id, id[2:]))
	bad("time 0", replace(p, `"time":`+fmt.Sprint(theTime), `"time":0`))
	bad("time negative", replace(p, `"time":`+fmt.Sprint(theTime), `"time":-1`))
	bad("time with a fraction", replace(p, `"time":`+fmt.Sprint(theTime), `"time":`+fmt.Sprint(theTime)+`.5`))
	bad("time as text", replace(p, `"time":`+fmt.Sprint(theTime), `"time":"`+fmt.Sprint(theTime)+`"`))
	bad("bytes after the value", p+"{}")
	bad("cut", p[:len(p)-1])
	for _, e := range edits {
		bad(e[0], replace(p, e[1], e[2]))
	}
	return f
}

func composite(s *signer, docType string) func([]byte) ([]byte, string) {
	return func(payload []byte) ([]byte, string) { return s.pub, s.envelope(docType, payload) }
}

func quoted(member string, value []byte) string {
	return `"` + member + `":"` + hex.EncodeToString(value) + `"`
}

func based(member string, value []byte) string {
	return `"` + member + `":"` + base64.StdEncoding.EncodeToString(value) + `"`
}

func zeroed(member string) string { return `"` + member + `":"` + strings.Repeat("0", 64) + `"` }

func documentFiles() []File {
	person, business, ceremony := newSigner("person"), newSigner("business"), newSigner("ceremony")
	kem := func(name string) []byte { return xwingPublic(fixed(name, 32)) }
	aud, own, read := policies.VaultID(vaultID), policies.OwnerID(ownerID), policies.ReaderID(readerID)
	link := policies.Link{Seq: 5, Prev: policies.Hash(fixed("link before", 32))}
	hash := func(name string) policies.Hash { return policies.Hash(fixed(name, 32)) }
	readerSeed := hkdf(readerRoot, nil, encode("reader", ownerID, relNonce), 32)
	ct, _ := xwingEncapsulate(xwingPublic(readerSeed), fixed("grant randomness", 64))
	sessionCT, _ := xwingEncapsulate(kem("vault session seed"), fixed("session randomness", 64))
	session := ed25519.NewKeyFromSeed(fixed("session key", 32))
	sessionPublic := session.Public().(ed25519.PublicKey)
	zeroID := strings.Repeat("0", 64)

	identityKEM, loginKEM := kem("identity kem seed"), kem("identity login seed")
	identity := documentFile("identity", "who signs. The id is the hash of the first one; it is signed with its own key.",
		policies.Identity{Header: header("identity"), Kind: policies.KindBusiness, Name: "Bäckerei Übermut GmbH", SigningKey: business.pub, KEMKey: identityKEM, LoginKey: loginKEM, RecoveryHash: hash("recovery key")},
		composite(business, "identity"),
		[3]string{"kind not known", `"kind":"business"`, `"kind":"robot"`},
		[3]string{"a person with a name", `"kind":"business"`, `"kind":"person"`},
		[3]string{"name of 201 bytes", `Bäckerei Übermut GmbH`, strings.Repeat("n", 201)},
		[3]string{"KEM key cut", based("kem_key", identityKEM), based("kem_key", identityKEM[3:])},
		[3]string{"login key cut", based("login_key", loginKEM), based("login_key", loginKEM[3:])},
		[3]string{"signing key cut", based("signing_key", business.pub), based("signing_key", business.pub[3:])},
		[3]string{"no recovery key", quoted("recovery_hash", fixed("recovery key", 32)), zeroed("recovery_hash")})

	importSPKI := fixed("import key, which no case looks into", 422)
	logKey := ed25519.NewKeyFromSeed(fixed("log key", 32))
	logPublic := logKey.Public().(ed25519.PublicKey)
	hostPublic := hostKey().pub
	vaultHPKE, vaultSession := kem("vault import seed"), kem("vault session seed")
	vault := documentFile("vault", "which keys of a vault are real, signed by the ceremony key that clients pinned. The import key here is not one: only its place counts.",
		policies.VaultDocument{Header: header("vault"), Vault: aud, Version: 3, CeremonyKey: ceremony.pub,
			Tokens: []policies.TokenEntry{{Serial: "0123456789abcdef", Label: "sallyport", Model: "SoftHSM v2", Grade: "unproven", ImportKeys: []policies.ImportKey{
				{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: importSPKI}}}},
			LogKey:     policies.LogKey{Name: logName, Algorithm: "Ed25519", PublicKey: logPublic},
			LogHostKey: policies.LogKey{Name: hostName, Algorithm: "ML-DSA-44", PublicKey: hostPublic}, ImportHPKE: vaultHPKE, SessionKEM: vaultSession},
		composite(ceremony, "vault"),
		[3]string{"version 0", `"version":3`, `"version":0`},
		[3]string{"no vault id", quoted("vault", vaultID), zeroed("vault")},
		[3]string{"ceremony key cut", based("ceremony_key", ceremony.pub), based("ceremony_key", ceremony.pub[3:])},
		[3]string{"log key of another algorithm", `"algorithm":"Ed25519"`, `"algorithm":"RSA"`},
		[3]string{"log key without name", `"name":"` + logName + `"`, `"name":""`},
		[3]string{"log key with a name that no note can carry", `"name":"` + logName + `"`, `"name":"a b"`},
		[3]string{"host's log key of another algorithm", `"algorithm":"ML-DSA-44"`, `"algorithm":"ML-DSA-65"`},
		[3]string{"host's log key cut", based("public_key", hostPublic), based("public_key", hostPublic[4:])},
		[3]string{"host's log key without name", `"name":"` + hostName + `"`, `"name":""`},
		[3]string{"host's log key with a plus in its name", `"name":"` + hostName + `"`, `"name":"a+b"`},
		[3]string{"both log keys of one name", `"name":"` + hostName + `"`, `"name":"` + logName + `"`},
		[3]string{"HPKE key cut", based("import_hpke_key", vaultHPKE), based("import_hpke_key", vaultHPKE[3:])},
		[3]string{"session key cut", based("session_kem_key", vaultSession), based("session_kem_key", vaultSession[3:])},
		[3]string{"token without serial", `"serial":"0123456789abcdef"`, `"serial":""`})
	env := vault.Cases[0].In["envelope"]
	ceremonyHash := sha256.Sum256(ceremony.pub)
	pinIn := map[string]any{"type": "vault", "envelope": env, "pin_vault": vaultID, "pin_ceremony": ceremonyHash[:], "newest": 3}
	vault.add("as pinned, of the newest version seen", "document", "ok", pinIn, map[string]any{"payload": vault.Cases[0].Out["payload"], "hash": vault.Cases[0].Out["hash"]})
	vault.add("a newer version was seen", "document", "pin", with(pinIn, "newest", 4), nil)
	vault.add("another ceremony was pinned", "document", "pin", with(pinIn, "pin_ceremony", flip(ceremonyHash[:], 0)), nil)
	vault.add("another vault was pinned", "document", "pin", with(pinIn, "pin_vault", flip(vaultID, 0)), nil)

	relationship := documentFile("relationship", "a reader's X-Wing key for one owner, signed by the reader.",
		policies.Relationship{Header: header("relationship"), Audience: aud, Reader: read, Owner: own, KEMKey: xwingPublic(readerSeed), Nonce: policies.Nonce(relNonce)},
		composite(business, "relationship"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no reader", quoted("reader", readerID), zeroed("reader")},
		[3]string{"no owner", quoted("owner", ownerID), zeroed("owner")},
		[3]string{"no nonce", quoted("nonce", relNonce), `"nonce":"` + strings.Repeat("0", 32) + `"`},
		[3]string{"nonce of 15 bytes", quoted("nonce", relNonce), quoted("nonce", relNonce[1:])},
		[3]string{"key cut", based("kem_key", xwingPublic(readerSeed)), based("kem_key", xwingPublic(readerSeed)[3:])})

	var manifestDoc policies.Manifest
	if err := json.Unmarshal(theManifest(), &manifestDoc); err != nil {
		panic(err)
	}
	manifest := documentFile("manifest", "an author's list of an owner's items: one Merkle root.", manifestDoc, composite(person, "manifest"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no owner", quoted("owner", ownerID), zeroed("owner")},
		[3]string{"no author", quoted("author", ownerID), zeroed("author")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`},
		[3]string{"version 0", `"version":2`, `"version":0`},
		[3]string{"version 1 with a manifest before it", `"version":2`, `"version":1`},
		[3]string{"version 2 without one before it", quoted("prev_manifest", fixed("manifest before", 32)), zeroed("prev_manifest")},
		[3]string{"another author, whose chain and versions differ", quoted("author", ownerID), quoted("author", sourceID)},
		[3]string{"no root", quoted("root", fixed("root", 32)), zeroed("root")},
		[3]string{"too many items", `"tree_size":7`, `"tree_size":1048577`})

	field := func(name policies.Field, author []byte) policies.GrantedField {
		return policies.GrantedField{Field: name, Epoch: 3, Author: policies.AuthorID(author), Keys: []policies.WrappedKey{{Token: "0123456789abcdef", ImportKey: hash("import key"), Path: "oaep-direct", Digest: hash("digest " + string(name))}}}
	}
	grant := documentFile("grant", "an owner's permission to one reader.",
		policies.Grant{Header: header("grant"), Audience: aud, Owner: own, Link: link, Reader: read, Relationship: hash("relationship"), Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead},
			Purpose: "delivery", NotBefore: theTime, Expires: theTime + 86400, Limits: policies.Limits{ReadsPerDay: 100}, Ciphertext: ct,
			Fields: []policies.GrantedField{field("phone.mobile", ownerID), field("iban", sourceID)}},
		composite(person, "grant"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no reader", quoted("reader", readerID), zeroed("reader")},
		[3]string{"no relationship", quoted("relationship", fixed("relationship", 32)), zeroed("relationship")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`},
		[3]string{"custody not known", `"custody":"resident"`, `"custody":"cloud"`},
		[3]string{"no right", `"rights":["read"]`, `"rights":[]`},
		[3]string{"right not known", `"rights":["read"]`, `"rights":["write"]`},
		[3]string{"right twice", `"rights":["read"]`, `"rights":["read","read"]`},
		[3]string{"no purpose", `"purpose":"delivery"`, `"purpose":""`},
		[3]string{"purpose of 201 bytes", `"purpose":"delivery"`, `"purpose":"` + strings.Repeat("p", 201) + `"`},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+86400), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"ct cut", based("ct", ct), based("ct", ct[3:])},
		[3]string{"negative limit", `"reads_per_day":100`, `"reads_per_day":-1`},
		[3]string{"field name in upper case", `"field":"iban"`, `"field":"IBAN"`},
		[3]string{"epoch 0", `"field":"iban","epoch":3`, `"field":"iban","epoch":0`},
		[3]string{"one field twice", `"field":"iban","epoch":3,` + quoted("author", sourceID), `"field":"phone.mobile","epoch":3,` + quoted("author", ownerID)},
		[3]string{"no digest", quoted("digest", fixed("digest iban", 32)), zeroed("digest")})

	revocation := documentFile("revocation", "fields of grants that end for ever.",
		policies.Revocation{Header: header("revocation"), Audience: aud, Owner: own, Link: link, Reason: policies.ReasonWithdrawn,
			Items: []policies.RevokedItem{{Grant: policies.DocumentID(grantID), Field: "phone.mobile", Author: policies.AuthorID(ownerID)}}},
		composite(person, "revocation"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`},
		[3]string{"reason not known", `"reason":"withdrawn"`, `"reason":"whim"`},
		[3]string{"no grant", quoted("grant", grantID), `"grant":"` + zeroID + `"`},
		[3]string{"no author", quoted("author", ownerID), zeroed("author")},
		[3]string{"not a field name", `"field":"phone.mobile"`, `"field":"phone mobile"`})

	sessionDoc := documentFile("session", "a reader's delegation to a fresh Ed25519 key.",
		policies.Session{Header: header("session"), Audience: aud, Reader: read, Key: envelope.SessionPublicKey(sessionPublic), NotBefore: theTime, Expires: theTime + 600, Ciphertext: sessionCT},
		composite(business, "session"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no reader", quoted("reader", readerID), zeroed("reader")},
		[3]string{"key of 31 bytes", based("key", sessionPublic), based("key", sessionPublic[1:])},
		[3]string{"key of zeroes", based("key", sessionPublic), based("key", make([]byte, 32))},
		[3]string{"longer than ten minutes", fmt.Sprint(`"expires":`, theTime+600), fmt.Sprint(`"expires":`, theTime+601)},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+600), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"ct cut", based("ct", sessionCT), based("ct", sessionCT[3:])})

	readDoc := documentFile("read", "a request for the newest version of fields, signed by the session's Ed25519 key alone, over the PAE.",
		policies.ReadRequest{Header: header("read"), Audience: aud, Session: hash("session hash"), Nonce: policies.Nonce(fixed("request nonce", 16)), Expires: theTime + 60, Purpose: "delivery",
			Items: []policies.ReadItem{{Owner: own, Field: "phone.mobile"}, {Owner: own, Field: "iban", Author: policies.AuthorID(sourceID), Known: 4}}},
		func(payload []byte) ([]byte, string) {
			return sessionPublic, envelopeText("read", payload, ed25519.Sign(session, pae("read", payload)))
		},
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no session", quoted("session", fixed("session hash", 32)), zeroed("session")},
		[3]string{"no nonce", quoted("nonce", fixed("request nonce", 16)), `"nonce":"` + strings.Repeat("0", 32) + `"`},
		[3]string{"lives longer than two minutes", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime+121)},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"no purpose", `"purpose":"delivery"`, `"purpose":""`},
		[3]string{"not a field name", `"field":"phone.mobile"`, `"field":""`},
		[3]string{"known version negative", `"known":4`, `"known":-4`})

	bySession := func(payload []byte) ([]byte, string) {
		return sessionPublic, envelopeText("evidence", payload, ed25519.Sign(session, pae("evidence", payload)))
	}
	evidenceDoc := documentFile("evidence", "a request for proof of entries of the key-use log, signed by the session's Ed25519 key alone, over the PAE.",
		policies.EvidenceRequest{Header: header("evidence"), Audience: aud, Session: hash("session hash"), Nonce: policies.Nonce(fixed("request nonce", 16)), Expires: theTime + 60,
			Indexes: []uint64{3, 100, 1<<53 + 1}},
		bySession,
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no session", quoted("session", fixed("session hash", 32)), zeroed("session")},
		[3]string{"no nonce", quoted("nonce", fixed("request nonce", 16)), `"nonce":"` + strings.Repeat("0", 32) + `"`},
		[3]string{"lives longer than two minutes", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime+121)},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"one index twice", `[3,100,`, `[3,3,100,`},
		[3]string{"indexes that descend", `[3,100,`, `[100,3,`},
		[3]string{"neither indexes nor limit", `"indexes":[3,100,9007199254740993]`, `"indexes":[]`},
		[3]string{"indexes and a limit", `"indexes":[`, `"limit":1,"indexes":[`},
		[3]string{"indexes and before", `"indexes":[`, `"before":200,"indexes":[`},
		[3]string{"before without a limit", `"indexes":[3,100,9007199254740993]`, `"before":200`},
		[3]string{"a limit of 1,001", `"indexes":[3,100,9007199254740993]`, `"limit":1001`},
		[3]string{"1,001 indexes", `[3,100,9007199254740993]`, "[" + ascending(1001) + "]"},
		[3]string{"a negative index", `[3,`, `[-3,`})
	page := payloadOf(policies.EvidenceRequest{Header: header("evidence"), Audience: aud, Session: hash("session hash"), Nonce: policies.Nonce(fixed("request nonce", 16)), Expires: theTime + 120, Before: 200, Limit: 1000})
	evidenceDoc.add("a page", "payload", "ok", map[string]any{"type": "evidence", "payload": string(page)}, map[string]any{})
	newest := replace(string(page), `"before":200,`, ``)
	evidenceDoc.add("the newest page", "payload", "ok", map[string]any{"type": "evidence", "payload": newest}, map[string]any{})
	_, asRead := bySession(page)
	evidenceDoc.add("an envelope that calls it a read", "document", "signature", map[string]any{"type": "read", "public": []byte(sessionPublic), "envelope": replace(asRead, "sallyport.evidence.v1", "sallyport.read.v1")}, nil)

	queryDoc := documentFile("audit-query", "a query for entries of the key-use log, signed by an auditor.",
		policies.AuditQuery{Header: header("audit-query"), Audience: aud, Auditor: policies.IdentityID(readerID), Nonce: policies.Nonce(fixed("query nonce", 16)), Expires: theTime + 60,
			From: 512, Count: 65536, What: "bodies"},
		composite(business, "audit-query"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no auditor", quoted("auditor", readerID), zeroed("auditor")},
		[3]string{"no nonce", quoted("nonce", fixed("query nonce", 16)), `"nonce":"` + strings.Repeat("0", 32) + `"`},
		[3]string{"lives longer than two minutes", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime+121)},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+60), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"from negative", `"from":512`, `"from":-512`},
		[3]string{"from above 2^62", `"from":512`, `"from":4611686018427387905`},
		[3]string{"no entries", `"count":65536`, `"count":0`},
		[3]string{"too many entries", `"count":65536`, `"count":65537`},
		[3]string{"what not known", `"what":"bodies"`, `"what":"all"`},
		[3]string{"no what", `"what":"bodies"`, `"what":""`})

	return []File{identity, vault, relationship, manifest, grant, revocation, sessionDoc, readDoc, evidenceDoc, queryDoc, receiptFile(logKey), entryFile(), evidenceFile(logKey), checkpointFile()}
}

// ascending is the numbers below n as JSON has them.
func ascending(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return strings.Join(out, ",")
}

const logName = "vault.example/sallyport"

// logEntry is one entry of the key-use log with everything it commits to.
type logEntry struct {
	kind, outcome, details string
	owner, reader, salt    []byte
	time                   uint64 // Unix milliseconds
}

func (e *logEntry) commitment() []byte {
	sum := sha256.Sum256([]byte(e.details))
	c := sha256.Sum256(encode("entry-commitment", e.salt, sum[:]))
	return c[:]
}

func (e *logEntry) bytes() []byte {
	return encode("entry", []byte(e.kind), e.owner, e.reader, []byte(e.outcome), e.commitment())
}

func (e *logEntry) leaf() []byte { return append(u64(e.time), e.bytes()...) }

func theEntry(i int) logEntry {
	details := string(payloadOf(evidence.Details{Owner: policies.OwnerID(ownerID), Document: policies.Hash(fixed("accepted document", 32)), Version: uint64(i)}))
	return logEntry{kind: "manifest", outcome: "accepted", details: details, owner: fixed("pseudonym", 16), reader: make([]byte, 16), salt: fixed(fmt.Sprint("salt ", i), 16), time: uint64(theTime)*1000 + uint64(i)}
}

func entryFile() File {
	f := File{Name: "document-entry.json",
		What:      "Entries of the key-use log: leaf = u64 Unix milliseconds || entry(kind, owner pseudonym, reader pseudonym, outcome, commitment); commitment = SHA-256(entry-commitment(salt, SHA-256(details))).",
		Implement: "Read the leaf strictly, check that salt and details open its commitment (else proof), decode the details strictly."}
	e := theEntry(1)
	in := map[string]any{"leaf": e.leaf(), "salt": e.salt, "details": e.details}
	f.add("an entry", "entry", "ok", in, map[string]any{"time": e.time, "kind": e.kind, "owner": e.owner, "reader": e.reader, "outcome": e.outcome, "commitment": e.commitment()})
	f.add("another salt", "entry", "proof", with(in, "salt", flip(e.salt, 0)), nil)
	f.add("other details", "entry", "proof", with(in, "details", replace(e.details, `"version":1`, `"version":2`)), nil)
	f.add("flipped bit in the commitment", "entry", "proof", with(in, "leaf", flip(e.leaf(), -1)), nil)
	use := e
	use.kind, use.outcome, use.reader = "use", "released", fixed("reader's pseudonym", 16)
	use.details = string(payloadOf(evidence.Details{
		Owner: policies.OwnerID(ownerID), Reader: policies.ReaderID(fixed("reader", 32)), Grant: policies.DocumentID(fixed("grant", 32)), Field: "phone.mobile", Epoch: 2,
		Author: policies.AuthorID(ownerID), Version: 3, Head: policies.Hash(fixed("manifest", 32)), Leaf: policies.Hash(fixed("leaf", 32)), Session: policies.Hash(fixed("session", 32)),
		Request: policies.Hash(fixed("request", 32)), Nonce: policies.Nonce(fixed("nonce", 16)), Token: "0123456789abcdef", Grade: "A", Custody: policies.CustodyResident, Decided: theTime*1000 - 7,
	}))
	f.add("a use, decided 8 ms before the log took it", "entry", "ok", map[string]any{"leaf": use.leaf(), "salt": use.salt, "details": use.details},
		map[string]any{"time": use.time, "kind": use.kind, "owner": use.owner, "reader": use.reader, "outcome": use.outcome, "commitment": use.commitment()})
	unsure := use
	unsure.details = strings.Replace(use.details, `"decided":`, `"decided":0.5,"index":`, 1)
	f.add("decided at no whole number", "entry", "malformed", map[string]any{"leaf": unsure.leaf(), "salt": unsure.salt, "details": unsure.details}, nil)
	bad := func(name string, leaf []byte) { f.add(name, "entry", "malformed", with(in, "leaf", leaf), nil) }
	stamped := func(fields ...[]byte) []byte { return append(u64(e.time), encode("entry", fields...)...) }
	c, kind, outcome := e.commitment(), []byte(e.kind), []byte(e.outcome)
	bad("nothing", nil)
	bad("a time alone", u64(e.time))
	bad("cut", e.leaf()[:len(e.leaf())-1])
	bad("one byte more", append(e.leaf(), 0))
	bad("no kind", stamped(nil, e.owner, e.reader, outcome, c))
	bad("pseudonym of 15 bytes", stamped(kind, e.owner[1:], e.reader, outcome, c))
	bad("commitment of 31 bytes", stamped(kind, e.owner, e.reader, outcome, c[1:]))
	bad("a field less", stamped(kind, e.owner, e.reader, outcome))
	bad("a field more", stamped(kind, e.owner, e.reader, outcome, c, nil))
	bad("another label", append(u64(e.time), encode("entri", kind, e.owner, e.reader, outcome, c)...))
	bad("a time above 2^53", append(u64(1<<53+1), e.bytes()...))
	unknown := e
	unknown.details = e.details[:len(e.details)-1] + `,"x":1}`
	f.add("details with an unknown member", "entry", "malformed", map[string]any{"leaf": unknown.leaf(), "salt": unknown.salt, "details": unknown.details}, nil)
	return f
}

// checkpoint is a C2SP signed note: origin, size, root, and an Ed25519 signature with the 4-byte key hash before it.
func checkpoint(name string, key ed25519.PrivateKey, size int, root []byte) string {
	text := fmt.Sprintf("%s\n%d\n%s\n", name, size, base64.StdEncoding.EncodeToString(root))
	return text + noteSignature(name, key, text)
}

func noteSignature(name string, key ed25519.PrivateKey, text string) string {
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), []byte{1}, key.Public().(ed25519.PublicKey)))
	sig := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(sum[:]))
	return fmt.Sprintf("\n\u2014 %s %s\n", name, base64.StdEncoding.EncodeToString(append(sig, ed25519.Sign(key, []byte(text))...)))
}

// evidenceFile has what comes out of a sealed answer to a request for evidence.
func evidenceFile(logKey ed25519.PrivateKey) File {
	f := File{Name: "evidence.json",
		What:      "The plaintext of the answer to a request for evidence: a checkpoint, entries of the key-use log each with what opens it and an RFC 6962 inclusion proof, and the asked indexes at which there is none of the reader's.",
		Implement: "Read strictly; verify the checkpoint under the log key (name, 32 bytes Ed25519), then of each entry the proof and the opening; an opening without salt and details was erased. Give of each entry index, kind, outcome and whether it was erased."}
	var leaves [][]byte
	for i := range 5 {
		e := theEntry(i)
		leaves = append(leaves, leafHash(e.leaf()))
	}
	root := treeHash(leaves)
	entry := func(i int) evidence.Evidence {
		e := theEntry(i)
		out := evidence.Evidence{Index: uint64(i), Leaf: e.leaf(), Opening: evidence.Opening{Salt: policies.Nonce(e.salt), Details: []byte(e.details)}}
		for _, h := range auditPath(i, leaves) {
			out.Proof = append(out.Proof, policies.Hash(h))
		}
		return out
	}
	answer := func(change func(*evidence.Answer)) string {
		a := evidence.Answer{Checkpoint: checkpoint(logName, logKey, 5, root), Evidence: []evidence.Evidence{entry(1), entry(4)}, Absent: []uint64{2, 1 << 40}, Before: 1}
		if change != nil {
			change(&a)
		}
		return string(payloadOf(a))
	}
	in := map[string]any{"answer": answer(nil), "log_name": logName, "log_key": []byte(logKey.Public().(ed25519.PublicKey))}
	said := func(i int, erased bool) any {
		return text(map[string]any{"index": uint64(i), "kind": "manifest", "outcome": "accepted", "erased": fmt.Sprint(erased)})
	}
	ok := func(name string, absent []any, before uint64, entries []any, change func(*evidence.Answer)) {
		f.add(name, "evidence", "ok", with(in, "answer", answer(change)), map[string]any{"entries": entries, "absent": absent, "before": before})
	}
	none := []any{"2", "1099511627776"}
	ok("two entries, two that are not there", none, 1, []any{said(1, false), said(4, false)}, nil)
	ok("nothing", []any{}, 0, []any{}, func(a *evidence.Answer) { *a = evidence.Answer{Checkpoint: a.Checkpoint} })
	ok("one that was erased", none, 1, []any{said(1, true), said(4, false)}, func(a *evidence.Answer) { a.Evidence[0].Opening = evidence.Opening{} })
	bad := func(name, expect string, change func(*evidence.Answer)) {
		f.add(name, "evidence", expect, with(in, "answer", answer(change)), nil)
	}
	bad("another index", "proof", func(a *evidence.Answer) { a.Evidence[0].Index = 0 })
	bad("index beyond the size", "proof", func(a *evidence.Answer) { a.Evidence[1].Index = 5 })
	bad("flipped bit in a leaf", "proof", func(a *evidence.Answer) { a.Evidence[1].Leaf = flip(a.Evidence[1].Leaf, 7) })
	bad("the opening of another entry", "proof", func(a *evidence.Answer) { a.Evidence[0].Opening = a.Evidence[1].Opening })
	bad("details without their salt", "proof", func(a *evidence.Answer) { a.Evidence[0].Opening.Salt = policies.Nonce{} })
	bad("a salt without details", "proof", func(a *evidence.Answer) { a.Evidence[0].Opening.Details = nil })
	bad("an erased entry, and no proof", "proof", func(a *evidence.Answer) { a.Evidence[0].Opening, a.Evidence[0].Proof = evidence.Opening{}, nil })
	bad("flipped bit in a proof", "proof", func(a *evidence.Answer) { a.Evidence[1].Proof[0][0] ^= 1 })
	bad("a proof of 65 hashes", "malformed", func(a *evidence.Answer) { a.Evidence[0].Proof = make([]policies.Hash, 65) })
	bad("1,001 entries that are not there", "malformed", func(a *evidence.Answer) { a.Evidence, a.Absent = nil, make([]uint64, 1001) })
	bad("checkpoint of another root, well signed", "proof", func(a *evidence.Answer) { a.Checkpoint = checkpoint(logName, logKey, 5, flip(root, 0)) })
	bad("checkpoint of another key", "signature", func(a *evidence.Answer) {
		a.Checkpoint = checkpoint(logName, ed25519.NewKeyFromSeed(fixed("another log key", 32)), 5, root)
	})
	bad("no checkpoint", "signature", func(a *evidence.Answer) { a.Checkpoint = "" })
	f.add("unknown member", "evidence", "malformed", with(in, "answer", replace(answer(nil), `"absent"`, `"x":1,"absent"`)), nil)
	f.add("a negative index", "evidence", "malformed", with(in, "answer", replace(answer(nil), `"index":1`, `"index":-1`)), nil)
	f.add("bytes after the value", "evidence", "malformed", with(in, "answer", answer(nil)+" {}"), nil)
	return f
}

func receiptFile(logKey ed25519.PrivateKey) File {
	f := File{Name: "document-receipt.json",
		What:      "Receipts: an entry of the key-use log with what opens it, an RFC 6962 inclusion proof, and a C2SP checkpoint signed by the vault's log key. Not an envelope.",
		Implement: "Read strictly; the vault and the document must be those given; verify the checkpoint under the log key (name, 32 bytes Ed25519), the proof, the opening; the details must name the document and the outcome be accepted."}
	var leaves [][]byte
	for i := range 5 {
		e := theEntry(i)
		leaves = append(leaves, leafHash(e.leaf()))
	}
	root := treeHash(leaves)
	document := fixed("accepted document", 32)
	e := theEntry(3)
	proof := func(path [][]byte) (out []policies.Hash) {
		for _, h := range path {
			out = append(out, policies.Hash(h))
		}
		return out
	}
	receipt := func(change func(*evidence.Receipt)) string {
		r := evidence.Receipt{Type: "receipt", Suite: "SP1", Vault: policies.VaultID(vaultID), Document: policies.Hash(document),
			Evidence:   evidence.Evidence{Index: 3, Leaf: e.leaf(), Opening: evidence.Opening{Salt: policies.Nonce(e.salt), Details: []byte(e.details)}, Proof: proof(auditPath(3, leaves))},
			Checkpoint: checkpoint(logName, logKey, 5, root)}
		if change != nil {
			change(&r)
		}
		return string(payloadOf(r))
	}
	in := map[string]any{"receipt": receipt(nil), "vault": vaultID, "document": document, "log_name": logName, "log_key": []byte(logKey.Public().(ed25519.PublicKey))}
	f.add("a receipt", "receipt", "ok", in, map[string]any{"time": e.time, "kind": e.kind, "outcome": e.outcome})
	bad := func(name, expect string, change func(*evidence.Receipt)) {
		f.add(name, "receipt", expect, with(in, "receipt", receipt(change)), nil)
	}
	f.add("for another document", "receipt", "proof", with(in, "document", flip(document, 0)), nil)
	f.add("of another vault", "receipt", "proof", with(in, "vault", flip(vaultID, 0)), nil)
	f.add("another log key", "receipt", "signature", with(in, "log_key", []byte(ed25519.NewKeyFromSeed(fixed("another log key", 32)).Public().(ed25519.PublicKey))), nil)
	f.add("another log name", "receipt", "signature", with(in, "log_name", "other.example/log"), nil)
	bad("names another document than its entry", "proof", func(r *evidence.Receipt) { r.Document = policies.Hash(flip(document, 0)) })
	bad("another index", "proof", func(r *evidence.Receipt) { r.Evidence.Index = 2 })
	bad("index beyond the size", "proof", func(r *evidence.Receipt) { r.Evidence.Index = 5 })
	bad("flipped bit in the leaf", "proof", func(r *evidence.Receipt) { r.Evidence.Leaf = flip(r.Evidence.Leaf, 7) })
	bad("another salt", "proof", func(r *evidence.Receipt) { r.Evidence.Opening.Salt[0] ^= 1 })
	bad("other details", "proof", func(r *evidence.Receipt) { r.Evidence.Opening.Details = []byte("{}") })
	bad("proof cut", "proof", func(r *evidence.Receipt) { r.Evidence.Proof = r.Evidence.Proof[:1] })
	bad("flipped bit in the proof", "proof", func(r *evidence.Receipt) { r.Evidence.Proof[0][0] ^= 1 })
	bad("checkpoint of another root, badly signed", "signature", func(r *evidence.Receipt) {
		good := strings.SplitAfter(checkpoint(logName, logKey, 5, root), "\n\n")
		r.Checkpoint = fmt.Sprintf("%s\n5\n%s\n\n", logName, base64.StdEncoding.EncodeToString(flip(root, 0))) + good[1]
	})
	bad("checkpoint of another root, well signed", "proof", func(r *evidence.Receipt) { r.Checkpoint = checkpoint(logName, logKey, 5, flip(root, 0)) })
	bad("checkpoint of another size, well signed", "proof", func(r *evidence.Receipt) { r.Checkpoint = checkpoint(logName, logKey, 4, root) })
	odd := func(text string) func(*evidence.Receipt) {
		return func(r *evidence.Receipt) { r.Checkpoint = text + noteSignature(logName, logKey, text) }
	}
	root64 := base64.StdEncoding.EncodeToString(root)
	bad("checkpoint with a fourth line, well signed", "malformed", odd(fmt.Sprintf("%s\n5\n%s\nx\n", logName, root64)))
	bad("checkpoint with a leading zero, well signed", "malformed", odd(fmt.Sprintf("%s\n05\n%s\n", logName, root64)))
	bad("checkpoint of another origin, well signed", "malformed", odd(fmt.Sprintf("other\n5\n%s\n", root64)))
	bad("no checkpoint", "signature", func(r *evidence.Receipt) { r.Checkpoint = "" })
	bad("another suite", "malformed", func(r *evidence.Receipt) { r.Suite = "SP2" })
	bad("another type", "malformed", func(r *evidence.Receipt) { r.Type = "grant" })
	f.add("unknown member", "receipt", "malformed", with(in, "receipt", replace(receipt(nil), `"type":"receipt"`, `"x":1,"type":"receipt"`)), nil)
	f.add("bytes after the value", "receipt", "malformed", with(in, "receipt", receipt(nil)+" {}"), nil)
	refused := theEntry(3)
	refused.outcome = "chain_moved"
	one := [][]byte{leafHash(refused.leaf())}
	bad("the entry records a refusal", "proof", func(r *evidence.Receipt) {
		r.Evidence = evidence.Evidence{Leaf: refused.leaf(), Opening: evidence.Opening{Salt: policies.Nonce(refused.salt), Details: []byte(refused.details)}}
		r.Checkpoint = checkpoint(logName, logKey, 1, treeHash(one))
	})
	return f
}
