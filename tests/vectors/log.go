package vectors

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
)

// The published form of the key-use log.

const hostName = logName + "/host"

// cosigner is a key of C2SP tlog-cosignature.
type cosigner struct {
	name  string
	kind  byte
	pub   []byte
	mldsa *mldsa44.PrivateKey
	ed    ed25519.PrivateKey
}

func newMLDSACosigner(name string) *cosigner {
	pub, private := mldsa44.NewKeyFromSeed((*[32]byte)(fixed("cosigner "+name, 32)))
	return &cosigner{name: name, kind: 6, pub: pub.Bytes(), mldsa: private}
}

func newEd25519Cosigner(name string) *cosigner {
	private := ed25519.NewKeyFromSeed(fixed("cosigner "+name, 32))
	return &cosigner{name: name, kind: 4, pub: private.Public().(ed25519.PublicKey), ed: private}
}

func hostKey() *cosigner { return newMLDSACosigner(hostName) }

func (c *cosigner) id() []byte {
	sum := sha256.Sum256(slices.Concat([]byte(c.name+"\n"), []byte{c.kind}, c.pub))
	return sum[:4]
}

func (c *cosigner) vkey() string {
	return fmt.Sprintf("%s+%x+%s", c.name, c.id(), base64.StdEncoding.EncodeToString(append([]byte{c.kind}, c.pub...)))
}

// sign makes a signature, of the deterministic variant of FIPS 204 where it is ML-DSA.
func (c *cosigner) sign(origin string, size int, root []byte, at uint64) []byte {
	if c.kind == 4 {
		return ed25519.Sign(c.ed, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n%d\n%s\n", at, origin, size, base64.StdEncoding.EncodeToString(root)))
	}
	message := slices.Concat([]byte("subtree/v1\n\x00"), []byte{byte(len(c.name))}, []byte(c.name), u64(at), []byte{byte(len(origin))}, []byte(origin), u64(0), u64(uint64(size)), root)
	sig := make([]byte, mldsa44.SignatureSize)
	if err := mldsa44.SignTo(c.mldsa, message, nil, false, sig); err != nil {
		panic(err)
	}
	return sig
}

func (c *cosigner) line(origin string, size int, root []byte, at uint64) string {
	return c.raw(at, c.sign(origin, size, root, at))
}

func (c *cosigner) raw(at uint64, sig []byte) string {
	return fmt.Sprintf("\u2014 %s %s\n", c.name, base64.StdEncoding.EncodeToString(slices.Concat(c.id(), u64(at), sig)))
}

func checkpointFile() File {
	f := File{Name: "checkpoint.json",
		What: "Published checkpoints of the key-use log: C2SP tlog-checkpoint with the line of the token's key (Ed25519), the line of the host's key (tlog-cosignature, ML-DSA-44, type 0x06) and cosignatures of witnesses (0x06 and 0x04).",
		Implement: "Verify the lines of the token's key and of the host's, and that at least need of the witnesses (verifier keys) signed; lines of other keys are passed over, a line of one of these keys that does not verify refuses the whole. " +
			"The ML-DSA signatures here are the deterministic variant of FIPS 204, so that they can be reproduced; real ones are hedged."}
	logKey := ed25519.NewKeyFromSeed(fixed("log key", 32))
	host, w1, w2 := hostKey(), newMLDSACosigner("witness.example/w1"), newEd25519Cosigner("witness.example/w2")
	root := fixed("published root", 32)
	const size, at = 70000, uint64(theTime)
	token := checkpoint(logName, logKey, size, root)
	body, tokenLine, _ := strings.Cut(token, "\n\n")
	body += "\n\n"
	hostLine, w1Line, w2Line := host.line(logName, size, root, at), w1.line(logName, size, root, at+1), w2.line(logName, size, root, at+2)
	witnesses := []string{w1.vkey(), w2.vkey()}
	in := map[string]any{"checkpoint": token + hostLine + w1Line + w2Line, "log_name": logName, "log_key": []byte(logKey.Public().(ed25519.PublicKey)),
		"host_name": hostName, "host_key": host.pub, "witnesses": witnesses, "need": 2}
	f.add("signed by token, host and both witnesses", "published", "ok", in, map[string]any{"size": size, "root": root, "host": at, "witnesses": "witness.example/w1 1800000001 witness.example/w2 1800000002"})
	f.add("no witness is asked for", "published", "ok", with(in, "checkpoint", token+hostLine, "witnesses", []string{}, "need", 0), map[string]any{"size": size, "root": root, "host": at, "witnesses": ""})
	f.add("one of two witnesses, with a stranger's line, the host's before the token's", "published", "ok",
		with(in, "checkpoint", body+newMLDSACosigner("stranger.example").line(logName, size, root, at)+hostLine+tokenLine+w2Line, "need", 1),
		map[string]any{"size": size, "root": root, "host": at, "witnesses": "witness.example/w2 1800000002"})
	bad := func(name, expect, text string, changes ...any) {
		f.add(name, "published", expect, with(in, append([]any{"checkpoint", text}, changes...)...), nil)
	}
	bad("the token's line alone", "signature", token, "need", 0)
	bad("the host's line alone", "signature", body+hostLine, "need", 0)
	bad("witnesses instead of the host", "signature", token+w1Line+w2Line, "need", 0)
	bad("one witness less than needed", "signature", token+hostLine+w1Line)
	bad("one witness twice", "signature", token+hostLine+w1Line+w1.line(logName, size, root, at+9))
	bad("the host's line of another size", "signature", token+host.line(logName, size+1, root, at)+w1Line+w2Line)
	bad("the host's line of another root", "signature", token+host.line(logName, size, flip(root, 0), at)+w1Line+w2Line)
	bad("the host's line of another origin", "signature", token+host.line("other.example", size, root, at)+w1Line+w2Line)
	bad("the host's line without a time", "signature", token+host.line(logName, size, root, 0)+w1Line+w2Line)
	bad("a witness's line of another root", "signature", token+hostLine+w1.line(logName, size, flip(root, 0), at)+w2Line, "need", 1)
	bad("an Ed25519 witness's line of another time", "signature", token+hostLine+w1Line+w2.raw(at+3, w2.sign(logName, size, root, at+2)), "need", 1)
	bad("the host's line by another key of its name", "signature", token+strings.Replace(newMLDSACosigner(hostName+"x").line(logName, size, root, at), hostName+"x", hostName, 1)+w1Line+w2Line)
	bad("more witnesses needed than there are", "malformed", token+hostLine+w1Line+w2Line, "need", 3)
	bad("one witness listed twice", "malformed", token+hostLine+w1Line, "witnesses", []string{w1.vkey(), w1.vkey()})
	bad("the host as its own witness", "malformed", token+hostLine, "witnesses", []string{host.vkey()}, "need", 1)
	bad("a verifier key whose id is another", "malformed", token+hostLine+w1Line, "witnesses", []string{strings.Replace(w1.vkey(), "+"+fmt.Sprintf("%x", w1.id())+"+", "+00000000+", 1)}, "need", 1)
	bad("a verifier key that signs notes, not checkpoints of others", "malformed", token+hostLine, "witnesses", []string{"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"}, "need", 0)
	return f
}
