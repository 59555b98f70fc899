package vectors

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
)

// twice signs as a succession is signed: by the new key, then by the one that may decide it.
func twice(first, second *signer) func([]byte) ([]byte, string) {
	return func(payload []byte) ([]byte, string) {
		text, more := first.envelope("succession", payload), second.envelope("succession", payload)
		sig := more[strings.Index(more, `{"keyid"`) : len(more)-2]
		return first.pub, text[:len(text)-2] + "," + sig + "]}"
	}
}

// successionFiles are the documents by which identities get new keys and readers end what they were granted, and those that say whose a name is.
func successionFiles() []File {
	person, business, ceremony := newSigner("person"), newSigner("business"), newSigner("ceremony")
	next, recovery := newSigner("person's next key"), newSigner("person's recovery key")
	aud, own, read := policies.VaultID(vaultID), policies.OwnerID(ownerID), policies.ReaderID(readerID)
	link := policies.Link{Seq: 5, Prev: policies.Hash(fixed("link before", 32))}
	hash := func(name string) policies.Hash { return policies.Hash(fixed(name, 32)) }
	kem, login := xwingPublic(fixed("next kem seed", 32)), xwingPublic(fixed("next login seed", 32))
	reader := policies.Link{Seq: 1, Prev: policies.Hash(readerID)}

	closure := documentFile("closure", "the end of an owner's account: the last link of their chain.",
		policies.Closure{Header: header("closure"), Audience: aud, Owner: own, Link: link}, composite(person, "closure"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no owner", quoted("owner", ownerID), zeroed("owner")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`})

	doc := succession.Document{Header: header("succession"), Audience: aud, Identity: policies.IdentityID(ownerID), Link: link, Generation: 2, Previous: policies.Hash(ownerID), SigningKey: next.pub,
		KEMKey: kem, LoginKey: login, RecoveryHash: hash("next recovery key"), RecoveryKey: recovery.pub, Reason: succession.Stolen}
	signingHash := sha256.Sum256(next.pub)
	successor := documentFile("succession", "an identity's next document, signed by its own new key first and by the recovery key (or the key before) second. public is the new key, second the other one.",
		doc, twice(next, recovery),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no identity", quoted("identity", ownerID), zeroed("identity")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`},
		[3]string{"generation 1 is the first document", `"generation":2`, `"generation":1`},
		[3]string{"generation 2^32 + 1", `"generation":2`, `"generation":4294967297`},
		[3]string{"nothing before it", quoted("previous", ownerID), zeroed("previous")},
		[3]string{"signing key cut", based("signing_key", next.pub), based("signing_key", next.pub[3:])},
		[3]string{"KEM key cut", based("kem_key", kem), based("kem_key", kem[3:])},
		[3]string{"one key for two uses", based("kem_key", kem), based("kem_key", login)},
		[3]string{"recovery key cut", based("recovery_key", recovery.pub), based("recovery_key", recovery.pub[3:])},
		[3]string{"no next recovery key", quoted("recovery_hash", fixed("next recovery key", 32)), zeroed("recovery_hash")},
		[3]string{"one key to sign and to recover", quoted("recovery_hash", fixed("next recovery key", 32)), quoted("recovery_hash", signingHash[:])},
		[3]string{"neither recovery key nor notice", based("recovery_key", recovery.pub), `"recovery_key":""`},
		[3]string{"both", `"reason":`, quoted("notice", fixed("notice", 32)) + `,"reason":`},
		[3]string{"reason not known", `"reason":"stolen"`, `"reason":"bored"`},
		[3]string{"no reason", `"reason":"stolen"`, `"reason":""`})
	for i := range successor.Cases {
		if c := &successor.Cases[i]; c.Operation == "document" {
			c.In["second"] = fmt.Sprintf("%x", recovery.pub)
		}
	}
	in := successor.Cases[0].In
	payload := payloadOf(doc)
	bad := func(name, expect string, changes ...any) {
		successor.add(name, "document", expect, with(in, changes...), nil)
	}
	_, swapped := twice(recovery, next)(payload)
	bad("the signatures in the other order", "signature", "envelope", swapped)
	_, thief := twice(next, person)(payload)
	bad("signed by the key before where the recovery key is named", "signature", "envelope", thief)
	_, twiceNew := twice(next, next)(payload)
	bad("the new key alone, twice", "signature", "envelope", twiceNew)
	bad("one signature", "malformed", "envelope", next.envelope("succession", payload))
	text := in["envelope"].(string)
	sig := text[strings.LastIndex(text, `,{"keyid"`) : len(text)-2]
	bad("three signatures", "malformed", "envelope", replace(text, sig, sig+sig))

	noticed := doc
	noticed.RecoveryKey, noticed.Notice = nil, hash("notice")
	noticedPayload := payloadOf(noticed)
	public, env := twice(next, person)(noticedPayload)
	successor.add("one that was announced: the key before signs", "document", "ok", map[string]any{"type": "succession", "public": public, "second": person.pub, "envelope": env},
		map[string]any{"payload": string(noticedPayload), "hash": paeHash("succession", noticedPayload)})
	promise := sha256.Sum256(encode("successor", ownerID, next.pub, kem, login, fixed("next recovery key", 32)))
	successor.add("what a notice of it announces", "successor", "ok", map[string]any{"payload": string(payload)}, map[string]any{"successor": promise[:]})

	notice := documentFile("succession-notice", "a change of keys without the recovery key is announced; without successor what was announced is taken back.",
		succession.Notice{Header: header("succession-notice"), Audience: aud, Identity: policies.IdentityID(ownerID), Link: link, Successor: promise}, composite(person, "succession-notice"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no identity", quoted("identity", ownerID), zeroed("identity")},
		[3]string{"seq 0", `"seq":5`, `"seq":0`},
		[3]string{"half a successor", quoted("successor", promise[:]), quoted("successor", promise[:16])})
	takenBack := string(payloadOf(succession.Notice{Header: header("succession-notice"), Audience: aud, Identity: policies.IdentityID(ownerID), Link: link}))
	notice.add("taken back", "payload", "ok", map[string]any{"type": "succession-notice", "payload": takenBack}, map[string]any{})

	suspension := documentFile("suspension", "a reader ends the use of all grants that it has: a link of its own chain.",
		succession.Suspension{Header: header("suspension"), Audience: aud, Reader: read, Link: reader}, composite(business, "suspension"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no reader", quoted("reader", readerID), zeroed("reader")},
		[3]string{"seq 0", `"seq":1`, `"seq":0`})

	renunciation := documentFile("renunciation", "a reader gives up fields of grants that it has. It is no link of a chain.",
		succession.Renunciation{Header: header("renunciation"), Audience: aud, Reader: read, Owner: own,
			Items: []policies.RevokedItem{{Grant: policies.DocumentID(grantID), Field: "phone.mobile", Author: policies.AuthorID(sourceID)}}}, composite(business, "renunciation"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no reader", quoted("reader", readerID), zeroed("reader")},
		[3]string{"no owner", quoted("owner", ownerID), zeroed("owner")},
		[3]string{"no grant", quoted("grant", grantID), zeroed("grant")},
		[3]string{"no author", quoted("author", sourceID), zeroed("author")},
		[3]string{"not a field name", `"field":"phone.mobile"`, `"field":"phone mobile"`},
		[3]string{"a place in a chain", `"items":`, `"seq":5,"items":`})

	voucher := documentFile("voucher", "the vault's operator says that a name is an identity's own: signed by the ceremony key.",
		names.Voucher{Header: header("voucher"), Audience: aud, Identity: policies.IdentityID(readerID), Serial: 7, Name: "Bäckerei Übermut GmbH", NotBefore: theTime, Expires: theTime + names.MaxVoucher},
		composite(ceremony, "voucher"),
		[3]string{"no vault", quoted("aud", vaultID), zeroed("aud")},
		[3]string{"no identity", quoted("identity", readerID), zeroed("identity")},
		[3]string{"serial number 0", `"serial":7`, `"serial":0`},
		[3]string{"no name", `"name":"Bäckerei Übermut GmbH"`, `"name":""`},
		[3]string{"name of 201 bytes", `Bäckerei Übermut GmbH`, strings.Repeat("n", 201)},
		[3]string{"name without a letter", `Bäckerei Übermut GmbH`, `4711`},
		[3]string{"name of letters that look like punctuation", `Bäckerei Übermut GmbH`, "\u01c3\u01c3 \u01c3"},
		[3]string{"name of letters of two systems that look like punctuation", `Bäckerei Übermut GmbH`, "\u304f\u30ce"},
		[3]string{"name of Latin and Cyrillic letters", `Bäckerei Übermut GmbH`, "Bäckerei \u00dcbermut GmbН"},
		[3]string{"name with a soft hyphen", `Bäckerei Übermut GmbH`, "Bäckerei\u00ad GmbH"},
		[3]string{"name in Unicode's form NFD", `Bäckerei Übermut GmbH`, "Ba\u0308ckerei"},
		[3]string{"name with two spaces", `Bäckerei Übermut GmbH`, "Bäckerei  GmbH"},
		[3]string{"longer than 400 days", fmt.Sprint(`"expires":`, theTime+names.MaxVoucher), fmt.Sprint(`"expires":`, theTime+names.MaxVoucher+1)},
		[3]string{"ends before it begins", fmt.Sprint(`"expires":`, theTime+names.MaxVoucher), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"withdrawn and good", `"not_before":`, `"withdrawn":true,"not_before":`})
	for _, c := range [][2]string{{"withdrawn"}, {"a name in two systems that are written together", "東京ガス Tokyo"}, {"a letter that looks like punctuation beside a sign that looks like letters", "\u01c3 \u2116"}} {
		name, text := c[0], c[1]
		d := names.Voucher{Header: header("voucher"), Audience: aud, Identity: policies.IdentityID(readerID), Serial: 8, Name: "Bäckerei Übermut GmbH", Withdrawn: true}
		if text != "" {
			d.Name, d.Withdrawn, d.NotBefore, d.Expires = text, false, theTime, theTime+86400
		}
		voucher.add(name, "payload", "ok", map[string]any{"type": "voucher", "payload": string(payloadOf(d))}, map[string]any{})
	}

	statement := documentFile("domain-statement", "what an identity says of a domain whose website says the same of it.",
		names.Statement{Header: header("domain-statement"), Identity: policies.IdentityID(readerID), Domain: "xn--bckerei-5wa.example", Expires: theTime + 86400}, composite(business, "domain-statement"),
		[3]string{"no identity", quoted("identity", readerID), zeroed("identity")},
		[3]string{"ends before its time", fmt.Sprint(`"expires":`, theTime+86400), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"longer than 400 days", fmt.Sprint(`"expires":`, theTime+86400), fmt.Sprint(`"expires":`, theTime+400*86400+1)},
		[3]string{"a domain in upper case", `xn--bckerei-5wa.example`, `Shop.example`},
		[3]string{"one label", `xn--bckerei-5wa.example`, `localhost`},
		[3]string{"an address", `xn--bckerei-5wa.example`, `192.0.2.1`},
		[3]string{"with a port", `xn--bckerei-5wa.example`, `shop.example:443`},
		[3]string{"a label of 64 letters", `xn--bckerei-5wa.example`, strings.Repeat("a", 64) + `.example`},
		[3]string{"a label that ends in a hyphen", `xn--bckerei-5wa.example`, `shop-.example`},
		[3]string{"the last label a number", `xn--bckerei-5wa.example`, `shop.1`},
		[3]string{"an empty label at the end", `xn--bckerei-5wa.example`, `shop.example.`})

	return []File{closure, successor, notice, suspension, renunciation, voucher, statement}
}
