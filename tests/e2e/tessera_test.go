package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/tests/stage"
)

// TestTesseraAsksOurWitness: a log that nobody here wrote, Tessera's, publishes nothing without cosignatures of two of our witnesses, and has them. What it then
// published opens under its own key and theirs. It knows Ed25519 cosignatures only, so each witness answers with one beside the ML-DSA-44 one.
func TestTesseraAsksOurWitness(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const origin = "tessera.example/log"
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	vkey, err := note.NewEd25519VerifierKey(origin, private.Public().(ed25519.PublicKey))
	must(t, err)
	signer, err := note.NewSigner("PRIVATE+KEY+" + origin + "+" + strings.Split(vkey, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...)))
	must(t, err)
	policy, rule := "", evidence.Witnesses{Need: 2}
	for i := range 2 {
		w, err := stage.NewWitness(ctx, binaries, filepath.Join(t.TempDir(), "witness"), fmt.Sprint("witness.example/w", i), fmt.Sprintf("[[log]]\nkey = %q\n", vkey))
		must(t, err)
		t.Cleanup(func() { must(t, w.Stop()) })
		at, err := w.URL()
		must(t, err)
		policy += fmt.Sprintf("witness w%d %s %s\n", i, w.Ed25519, at)
		c, err := evidence.ParseCosigner(w.Ed25519)
		must(t, err)
		rule.Of = append(rule.Of, c)
	}
	group, err := tessera.NewWitnessGroupFromPolicy([]byte(policy + "group both all w0 w1\nquorum both\n"))
	must(t, err)
	driver, err := posix.New(ctx, posix.Config{Path: t.TempDir()})
	must(t, err)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).WithBatching(4, 10*time.Millisecond).WithCheckpointInterval(200*time.Millisecond).
		WithWitnesses(group, &tessera.WitnessOptions{Timeout: 10 * time.Second}))
	must(t, err)
	key, err := evidence.ParseLogKey(vkey)
	must(t, err)
	awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, 20*time.Millisecond)
	for i := range 12 {
		index, checkpoint, err := awaiter.Await(ctx, appender.Add(ctx, tessera.NewEntry(fmt.Appendf(nil, "entry %d", i))))
		must(t, err)
		c, by, err := evidence.OpenCosigned(string(checkpoint), key, rule)
		if err != nil || c.Size <= index.Index || len(by) != 2 {
			t.Fatalf("entry %d: %v, %+v", index.Index, err, by)
		}
	}
	must(t, shutdown(ctx))
}
