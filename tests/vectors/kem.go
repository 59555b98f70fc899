package vectors

import (
	"crypto/ed25519"
	"slices"
)

func grantKEMFile() File {
	f := File{Name: "grant-kem.json",
		What:      "Grants: the reader's X-Wing key for one owner (draft-connolly-cfrg-xwing-kem; the private key is its 32-byte seed), the encapsulation, d and rk.",
		Implement: "reader-key: seed = HKDF(root, reader(owner, nonce)), public key from it. grant: encapsulate with the given 64 bytes (the draft's eseed), derive d and rk, decapsulate to the same secret."}
	seed := hkdf(readerRoot, nil, encode("reader", ownerID, relNonce), 32)
	public := xwingPublic(seed)
	f.add("the reader's key for an owner", "reader-key", "ok", map[string]any{"reader_root": readerRoot, "owner": ownerID, "nonce": relNonce}, map[string]any{"seed": seed, "public": public})
	other := hkdf(readerRoot, nil, encode("reader", sourceID, relNonce), 32)
	f.add("its key for another owner", "reader-key", "ok", map[string]any{"reader_root": readerRoot, "owner": sourceID, "nonce": relNonce}, map[string]any{"seed": other, "public": xwingPublic(other)})
	in, out := grantIn(mobile)
	f.add("a grant", "grant", "ok", in, out)
	for _, s := range []slot{{ownerID, ownerID, "phone.mobile", 4}, {ownerID, sourceID, "phone.mobile", 3}, {ownerID, ownerID, "iban", 3}} {
		in, out := grantIn(s)
		f.add("the same secret, another slot: unrelated d", "grant", "ok", in, out)
	}
	f.add("encapsulate to a short key", "encapsulate", "key", map[string]any{"public": public[:1215]}, nil)
	f.add("encapsulate to a long key", "encapsulate", "key", map[string]any{"public": append(slices.Clone(public), 0)}, nil)
	unreduced := slices.Clone(public)
	unreduced[0], unreduced[1] = 255, 255
	f.add("encapsulate to a key with a coefficient of q or more (FIPS 203 section 7.2)", "encapsulate", "key", map[string]any{"public": unreduced}, nil)
	ct := out["ct"].([]byte)
	f.add("ct cut", "decapsulate", "open", map[string]any{"reader_root": readerRoot, "owner": ownerID, "nonce": relNonce, "ct": ct[:1119]}, nil)
	f.add("ct longer", "decapsulate", "open", map[string]any{"reader_root": readerRoot, "owner": ownerID, "nonce": relNonce, "ct": append(slices.Clone(ct), 0)}, nil)
	return f
}

func hpkeFile() File {
	f := File{Name: "hpke-import.json",
		What:      "Blobs: HPKE (RFC 9180) base mode, KEM 0x647a (X-Wing), HKDF-SHA-256, AES-256-GCM, no associated data: enc (1,120) || ciphertext. The info of an import is import(vault, grant hash, field, epoch, author), of a message message(type, from, to), of the points of a write grant write-grant(vault, grant, owner, writer, and each field and epoch).",
		Implement: "info: compute it. open: with the key of the seed. seal: the blob is what 64 bytes of random (the eseed of X-Wing) give; whoever cannot set them opens only."}
	seed := fixed("vault import seed", 32)
	public := xwingPublic(seed)
	hash := fixed("grant hash", 32)
	info := encode("import", vaultID, hash, []byte("phone.mobile"), u64(3), ownerID)
	f.add("info of an import", "import-info", "ok", map[string]any{"vault": vaultID, "grant_hash": hash, "field": "phone.mobile", "epoch": uint64(3), "author": ownerID}, map[string]any{"info": info})
	f.add("info of an import, not a field name", "import-info", "malformed", map[string]any{"vault": vaultID, "grant_hash": hash, "field": "Phone", "epoch": uint64(3), "author": ownerID}, nil)
	message := encode("message", []byte("consent"), ownerID, readerID)
	f.add("info of a message", "message-info", "ok", map[string]any{"type": "consent", "from": ownerID, "to": readerID}, map[string]any{"info": message})
	f.add("info of a message without type", "message-info", "malformed", map[string]any{"type": "", "from": ownerID, "to": readerID}, nil)
	points := encode("write-grant", vaultID, grantID, ownerID, sourceID, []byte("bank.iban"), u64(1), []byte("phone.mobile"), u64(3))
	f.add("info of a write grant's points", "write-info", "ok",
		map[string]any{"vault": vaultID, "grant": grantID, "owner": ownerID, "writer": sourceID, "fields": [][]byte{[]byte("bank.iban"), []byte("phone.mobile")}, "epochs": [][]byte{u64(1), u64(3)}}, map[string]any{"info": points})
	plaintext, coins := fixed("wrapped key", 384), fixed("hpke randomness", 64)
	blob := sealHPKE(public, info, plaintext, coins)
	in := map[string]any{"seed": seed, "public": public, "random": coins, "info": info, "blob": blob}
	f.add("open", "open", "ok", in, map[string]any{"plaintext": plaintext})
	f.add("open, empty plaintext", "open", "ok", with(in, "blob", sealHPKE(public, info, nil, coins)), map[string]any{"plaintext": []byte{}})
	bad := func(name string, changes ...any) { f.add("open, "+name, "open", "open", with(in, changes...), nil) }
	bad("another vault", "info", encode("import", flip(vaultID, 0), hash, []byte("phone.mobile"), u64(3), ownerID))
	bad("another grant", "info", encode("import", vaultID, flip(hash, 0), []byte("phone.mobile"), u64(3), ownerID))
	bad("another field", "info", encode("import", vaultID, hash, []byte("phone.home"), u64(3), ownerID))
	bad("another epoch", "info", encode("import", vaultID, hash, []byte("phone.mobile"), u64(4), ownerID))
	bad("another author", "info", encode("import", vaultID, hash, []byte("phone.mobile"), u64(3), sourceID))
	bad("no info", "info", []byte{})
	bad("another key", "seed", flip(seed, 0))
	bad("flipped bit in the ML-KEM part of enc", "blob", flip(blob, 7))
	bad("flipped bit in the X25519 part of enc", "blob", flip(blob, 1119))
	bad("flipped bit in the ciphertext", "blob", flip(blob, 1121))
	bad("flipped bit in the tag", "blob", flip(blob, -1))
	bad("cut", "blob", blob[:1135])
	bad("nothing", "blob", []byte{})
	bad("one byte more", "blob", append(slices.Clone(blob), 0))
	return f
}

func sessionKeyFile() File {
	f := File{Name: "session-key.json",
		What:      "The key K of a session and the vault's answers under it: K = HKDF(ss, session-key(vault, reader, session hash)); answer = nonce (12) || AES-256-GCM(HKDF(K, answer(request hash)), nonce, plaintext, associated data answer(request hash)). Evidence likewise, with evidence(request hash) in both places.",
		Implement: "encapsulate with the given 64 bytes; derive K on both sides; seal with the given 12 bytes as nonce; open."}
	seed, coins, nonce := fixed("vault session seed", 32), fixed("session randomness", 64), fixed("answer nonce", 12)
	public := xwingPublic(seed)
	ct, ss := xwingEncapsulate(public, coins)
	session, request, answer := fixed("session hash", 32), fixed("request hash", 32), []byte("the answer")
	k := hkdf(ss, nil, encode("session-key", vaultID, readerID, session), 32)
	info := encode("answer", request)
	key := hkdf(k, nil, info, 32)
	sealed := append(slices.Clone(nonce), sealGCM(key, nonce, answer, info)...)
	in := map[string]any{"seed": seed, "public": public, "random": coins, "vault": vaultID, "reader": readerID, "session": session, "request": request, "answer_nonce": nonce, "ct": ct, "answer": sealed}
	f.add("open", "open", "ok", in, map[string]any{"ss": ss, "K": k, "answer_key": key, "plaintext": answer})
	bad := func(name string, changes ...any) { f.add("open, "+name, "open", "open", with(in, changes...), nil) }
	bad("another vault", "vault", flip(vaultID, 0))
	bad("another vault's key", "seed", flip(seed, 0))
	bad("another reader", "reader", flip(readerID, 0))
	bad("another session", "session", flip(session, 0))
	bad("another request", "request", flip(request, 0))
	bad("flipped bit in ct", "ct", flip(ct, 0))
	bad("ct cut", "ct", ct[1:])
	bad("flipped bit in the nonce", "answer", flip(sealed, 0))
	bad("flipped bit in the answer", "answer", flip(sealed, 13))
	bad("flipped bit in the tag", "answer", flip(sealed, -1))
	bad("answer cut", "answer", sealed[:27])
	bad("nothing", "answer", []byte{})
	proofInfo := encode("evidence", request)
	proofKey := hkdf(k, nil, proofInfo, 32)
	proofs := append(slices.Clone(nonce), sealGCM(proofKey, nonce, answer, proofInfo)...)
	f.add("open evidence", "open-evidence", "ok", with(in, "answer", proofs), map[string]any{"ss": ss, "K": k, "answer_key": proofKey, "plaintext": answer})
	f.add("open, evidence in the place of an answer", "open", "open", with(in, "answer", proofs), nil)
	f.add("open evidence, an answer in its place", "open-evidence", "open", in, nil)
	f.add("open evidence, of another request", "open-evidence", "open", with(in, "answer", proofs, "request", flip(request, 0)), nil)
	f.add("open evidence, of another session", "open-evidence", "open", with(in, "answer", proofs, "session", flip(session, 0)), nil)
	f.add("open evidence, flipped bit", "open-evidence", "open", with(in, "answer", flip(proofs, 13)), nil)
	return f
}

func answerFile() File {
	f := File{Name: "answer.json",
		What:      "The plaintext of a vault's answer: u64 Unix milliseconds || u16 count || per item u8 length || outcome, E' (32), leaf hash (32), manifest hash (32), u64 manifest version, u64 log index, u64 accepted.",
		Implement: "parse: accept exactly this; written again it is the same bytes."}
	answerItem := func(outcome string, version, index, accepted uint64) ([]byte, any) {
		x, leaf, head := fixed("x "+outcome, 32), fixed("leaf "+outcome, 32), fixed("head "+outcome, 32)
		return slices.Concat([]byte{byte(len(outcome))}, []byte(outcome), x, leaf, head, u64(version), u64(index), u64(accepted)),
			text(map[string]any{"outcome": outcome, "x": x, "leaf_hash": leaf, "head": head, "version": version, "index": index, "accepted": accepted})
	}
	a, aOut := answerItem("released", 7, 100, 98)
	b, bOut := answerItem("grant_revoked", 0, 1<<53, 0)
	head := append(u64(theTime*1000), 0, 2)
	good := slices.Concat(head, a, b)
	f.add("two items", "parse", "ok", map[string]any{"answer": good}, map[string]any{"time": uint64(theTime * 1000), "items": []any{aOut, bOut}})
	f.add("no item", "parse", "ok", map[string]any{"answer": append(u64(theTime*1000), 0, 0)}, map[string]any{"time": uint64(theTime * 1000), "items": []any{}})
	bad := func(name string, answer []byte) {
		f.add(name, "parse", "malformed", map[string]any{"answer": answer}, nil)
	}
	bad("nothing", nil)
	bad("a time alone", u64(theTime*1000))
	bad("cut by one byte", good[:len(good)-1])
	bad("one byte more", append(slices.Clone(good), 0))
	bad("an item less than counted", slices.Concat(head, a))
	bad("an item more than counted", slices.Concat(head, a, b, a))
	bad("65,535 items counted", append(u64(theTime*1000), 255, 255))
	bad("an outcome beyond the end", slices.Concat(head, a, []byte{255}, b[1:]))
	return f
}

func loginFile() File {
	f := File{Name: "login.json",
		What:      "Login challenges: answer = HMAC-SHA-256(HKDF(ss, challenge-answer()), challenge(server, subject, ct, nonce, fresh key)).",
		Implement: "answer: decapsulate ct, give out the MAC and nothing else. verify: compare in constant time."}
	seed, coins := hkdf(ownerRoot, nil, encode("login-kem"), 32), fixed("challenge randomness", 64)
	public := xwingPublic(seed)
	ct, ss := xwingEncapsulate(public, coins)
	server, nonce := "store.example:443", fixed("challenge nonce", 16)
	fresh := []byte(ed25519.NewKeyFromSeed(fixed("fresh key", 32)).Public().(ed25519.PublicKey))
	key := hkdf(ss, nil, encode("challenge-answer"), 32)
	answer := mac(key, encode("challenge", []byte(server), ownerID, ct, nonce, fresh))
	in := map[string]any{"seed": seed, "public": public, "random": coins, "server": server, "subject": ownerID, "ct": ct, "nonce": nonce, "fresh_key": fresh}
	f.add("answer", "answer", "ok", in, map[string]any{"ss": ss, "key": key, "answer": answer})
	f.add("answer, no server", "answer", "malformed", with(in, "server", ""), nil)
	f.add("answer, ct cut", "answer", "malformed", with(in, "ct", ct[:1119]), nil)
	verify := with(in, "answer", answer)
	f.add("verify", "verify", "ok", verify, map[string]any{})
	bad := func(name string, changes ...any) {
		f.add("verify, "+name, "verify", "open", with(verify, changes...), nil)
	}
	bad("another server: a challenge passed on", "server", "evil.example:443")
	bad("another subject", "subject", flip(ownerID, 0))
	bad("another nonce", "nonce", flip(nonce, 0))
	bad("another fresh key", "fresh_key", flip(fresh, 0))
	bad("flipped bit in the answer", "answer", flip(answer, 0))
	bad("answer cut", "answer", answer[:31])
	bad("no answer", "answer", []byte{})
	return f
}
