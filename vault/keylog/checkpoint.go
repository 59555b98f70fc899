package keylog

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointText is the text that is signed: origin, size and root, a line each
// (C2SP tlog-checkpoint).
func checkpointText(origin string, size int64, root tlog.Hash) string {
	return origin + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

var errCheckpoint = errors.New("not a checkpoint of this log")

// parseCheckpoint verifies a signed checkpoint of this origin.
func parseCheckpoint(text []byte, v note.Verifier) (Checkpoint, error) {
	n, err := note.Open(text, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != v.Name() {
		return Checkpoint{}, errCheckpoint
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, errCheckpoint
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, errCheckpoint
	}
	c := Checkpoint{Size: size, Root: tlog.Hash(root), Note: string(text)}
	if n.Text != checkpointText(v.Name(), c.Size, c.Root) { // one spelling only
		return Checkpoint{}, errCheckpoint
	}
	return c, nil
}

// signature is a finished signature in the shape of a note.Signer: the token is
// asked before, with a context, which note.Signer does not carry.
type signature struct {
	note.Verifier
	bytes []byte
}

func (s signature) Sign([]byte) ([]byte, error) { return s.bytes, nil }

// sign has the token sign a tree. What came back is not trusted before
// checkpoint has verified it.
func (l *Log) sign(ctx context.Context, size int64, root tlog.Hash) (signed, error) {
	s := signed{size: size, root: root, id: l.id}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	text := []byte(checkpointText(l.verifier.Name(), size, root))
	sig, err := l.cfg.Signer.Sign(ctx, text)
	if err != nil {
		return s, err
	}
	if len(sig) != ed25519.SignatureSize {
		return s, errors.New("the token's signature does not have the length of an Ed25519 signature")
	}
	copy(s.signature[:], sig)
	return s, nil
}

// checkpoint makes the signed note of a state, and fails if the signature in it
// is not the log key's: stored, a wrong one would keep the log from opening.
func (l *Log) checkpoint(s *signed) (Checkpoint, error) {
	text := checkpointText(l.verifier.Name(), s.size, s.root)
	if !l.verifier.Verify([]byte(text), s.signature[:]) {
		return Checkpoint{}, errors.New("the signature does not verify under the log key")
	}
	b, err := note.Sign(&note.Note{Text: text}, signature{l.verifier, s.signature[:]})
	if err != nil {
		return Checkpoint{}, fmt.Errorf("formatting the checkpoint: %w", err)
	}
	return Checkpoint{Size: s.size, Root: s.root, Note: string(b)}, nil
}
