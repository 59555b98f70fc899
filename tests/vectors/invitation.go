package vectors

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
)

// invitation makes a token, with a nonce of one's own or the one that it must have.
func invitation(reader, plain, nonce []byte) (out map[string]any) {
	cipher, macKey := hkdf(readerRoot, nil, encode("invitation-cipher"), 32), hkdf(readerRoot, nil, encode("invitation-mac"), 32)
	if nonce == nil {
		nonce = mac(macKey, encode("invitation", reader, plain[:8], plain[8:]))[:12]
	}
	token := append(append([]byte(nil), nonce...), sealGCM(cipher, nonce, plain, encode("invitation", reader))...)
	return map[string]any{"cipher_key": cipher, "mac_key": macKey, "token": token, "link": "sallyport:invite?reader=" + hex.EncodeToString(reader) + "&token=" + base64.RawURLEncoding.EncodeToString(token)}
}

// invitationFiles are how a person is asked in: the token that a reader makes, the link around it, and the answer.
func invitationFiles() []File {
	f := File{Name: "invitation.json",
		What:      "Invitations: tokens of a reader's, and their links.",
		Implement: "token: make the token and the link of a reference and an end (expires) under the reader's root. open: what a token says to the reader who made it. link: read a link strictly; invitation is what a request for consent names, SHA-256 of the token.",
	}
	business := readerID[:]
	in := func(reference string) map[string]any {
		return map[string]any{"root": readerRoot, "reader": business, "reference": reference, "expires": uint64(theTime + 86400)}
	}
	var token []byte
	var link string
	for _, c := range [][2]string{{"a customer's number", "C-4711"}, {"one byte", "x"}, {"64 bytes", strings.Repeat("r", 64)}, {"letters of several bytes, and a space within", "Zoë Übermut 東京"}} {
		out := invitation(business, append(u64(theTime+86400), c[1]...), nil)
		f.add("a token: "+c[0], "token", "ok", in(c[1]), out)
		f.add("what it says: "+c[0], "open", "ok", map[string]any{"root": readerRoot, "reader": business, "token": out["token"]}, map[string]any{"reference": c[1], "expires": uint64(theTime + 86400)})
		if token == nil {
			token, link = out["token"].([]byte), out["link"].(string)
		}
	}
	f.add("another end, another token", "token", "ok", with(in("C-4711"), "expires", uint64(theTime+86401)), invitation(business, append(u64(theTime+86401), "C-4711"...), nil))
	for _, c := range [][2]string{{"nothing", ""}, {"65 bytes", strings.Repeat("r", 65)}, {"a line feed", "C\n4711"}, {"white space first", " C-4711"}, {"white space last", "C-4711\u00a0"}, {"what nobody sees", "C\u202e4711"}} {
		f.add("a reference of "+c[0], "token", "malformed", in(c[1]), nil)
	}
	opens := func(description string, token []byte, changes ...any) {
		f.add(description, "open", "open", with(map[string]any{"root": readerRoot, "reader": business, "token": token}, changes...), nil)
	}
	opens("a flipped bit in the nonce", flip(token, 0))
	opens("a flipped bit in the end", flip(token, 12))
	opens("a flipped bit in the tag", flip(token, -1))
	opens("cut", token[:len(token)-1])
	opens("shorter than a nonce", token[:11])
	opens("nothing", []byte{})
	opens("another reader's", token, "reader", ownerID[:])
	opens("another root", token, "root", ownerRoot)
	opens("a nonce that does not follow from what is sealed", invitation(business, append(u64(theTime+86400), "C-4711"...), fixed("a nonce", 12))["token"].([]byte))
	opens("an end cut short", invitation(business, u64(theTime + 86400)[:7], fixed("a nonce", 12))["token"].([]byte))

	id, coded := hex.EncodeToString(business), base64.RawURLEncoding.EncodeToString(token)
	hash := sha256.Sum256(token)
	reads := func(description, text string) {
		f.add(description, "link", "ok", map[string]any{"link": text}, map[string]any{"reader": business, "token": token, "invitation": hash[:]})
	}
	reads("a link", link)
	reads("the parameters in the other order", "sallyport:invite?token="+coded+"&reader="+id)
	reads("the scheme in upper case", "SALLYPORT"+strings.TrimPrefix(link, "sallyport"))
	long := fixed("a long token", 512)
	longHash := sha256.Sum256(long)
	f.add("a token of 512 bytes", "link", "ok", map[string]any{"link": "sallyport:invite?reader=" + id + "&token=" + base64.RawURLEncoding.EncodeToString(long)},
		map[string]any{"reader": business, "token": long, "invitation": longHash[:]})
	for _, c := range [][2]string{
		{"a token of 513 bytes", "sallyport:invite?reader=" + id + "&token=" + base64.RawURLEncoding.EncodeToString(fixed("a long token", 513))},
		{"no token", "sallyport:invite?reader=" + id},
		{"an empty token", "sallyport:invite?reader=" + id + "&token="},
		{"no reader", "sallyport:invite?token=" + coded},
		{"a reader in upper case", "sallyport:invite?reader=" + strings.ToUpper(id) + "&token=" + coded},
		{"a reader cut", "sallyport:invite?reader=" + id[2:] + "&token=" + coded},
		{"a token with padding", "sallyport:invite?reader=" + id + "&token=" + base64.URLEncoding.EncodeToString(token[:16])},
		{"a token in the other alphabet", "sallyport:invite?reader=" + id + "&token=%2F%2F%2F%2F"},
		{"a token that has one other spelling", "sallyport:invite?reader=" + id + "&token=AB"},
		{"a token with a line feed", "sallyport:invite?reader=" + id + "&token=AAAA%0A"},
		{"the token twice", link + "&token=" + coded},
		{"an unknown parameter", link + "&x=1"},
		{"a fragment", link + "#x"},
		{"another kind", strings.Replace(link, "invite", "owner", 1)},
		{"a kind in another case", strings.Replace(link, "invite", "Invite", 1)},
		{"two slashes", strings.Replace(link, "sallyport:", "sallyport://", 1)},
		{"more than 4,096 bytes", link + "&" + strings.Repeat("&", 4096)},
	} {
		f.add(c[0], "link", "malformed", map[string]any{"link": c[1]}, nil)
	}

	person := newSigner("person")
	nonce, b64 := hex.EncodeToString(relNonce[:]), base64.StdEncoding.EncodeToString
	addressed := consent.Addressed{Header: header("invitation-answer"), From: policies.IdentityID(ownerID), To: policies.IdentityID(readerID), Expires: theTime + 86400}
	answer := documentFile("invitation-answer", "a person accepts an invitation: its token, and the nonce of a code for this reader alone.",
		consent.Acceptance{Addressed: addressed, Invitation: token, Nonce: policies.Nonce(relNonce)}, composite(person, "invitation-answer"),
		[3]string{"from nobody", quoted("from", ownerID), zeroed("from")},
		[3]string{"to nobody", quoted("to", readerID), zeroed("to")},
		[3]string{"to oneself", quoted("to", readerID), quoted("to", ownerID)},
		[3]string{"ends before its time", fmt.Sprint(`"expires":`, theTime+86400), fmt.Sprint(`"expires":`, theTime)},
		[3]string{"an answer to a document", `"invitation":`, quoted("answers", fixed("a document", 32)) + `,"invitation":`},
		[3]string{"no invitation", based("invitation", token), `"invitation":""`},
		[3]string{"an invitation of 513 bytes", based("invitation", token), based("invitation", fixed("a long token", 513))},
		[3]string{"an invitation in the link's alphabet", based("invitation", token), `"invitation":"` + strings.NewReplacer("+", "-", "/", "_").Replace(b64(token[:15])) + `-_-_"`},
		[3]string{"no nonce", `"` + nonce + `"`, `"` + strings.Repeat("0", 32) + `"`},
		[3]string{"nonce cut", `"` + nonce + `"`, `"` + nonce[2:] + `"`})
	return []File{f, answer}
}
