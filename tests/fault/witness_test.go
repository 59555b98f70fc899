package fault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/tests/stage"
)

// witnessKills is how often the witness is killed.
const witnessKills = 50

// branch is one of the histories that a hostile host signs.
type branch struct {
	origin string
	signer note.Signer
	hashes hashes
	size   int64
}

type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

func (b *branch) grow(t *testing.T, size int64, what string) {
	for ; b.size < size; b.size++ {
		h, err := tlog.StoredHashes(b.size, fmt.Appendf(nil, "%s %d", what, b.size), b.hashes)
		must(t, err)
		b.hashes = append(b.hashes, h...)
	}
}

// request is an add-checkpoint request, and the checkpoint in it.
func (b *branch) request(t *testing.T, old, size int64) (body []byte, checkpoint string) {
	root, err := tlog.TreeHash(size, b.hashes)
	must(t, err)
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Size: uint64(size), Root: policies.Hash(root)}.Text(b.origin)}, b.signer)
	must(t, err)
	body = fmt.Appendf(nil, "old %d\n", old)
	if old > 0 && old < size {
		proof, err := tlog.ProveTree(size, old, b.hashes)
		must(t, err)
		for _, h := range proof {
			body = append(body, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
		}
	}
	return append(append(body, '\n'), signed...), string(signed)
}

// cosigned is a cosignature that somebody got.
type cosigned struct {
	evidence.Checkpoint
	branch int
}

// TestWitnessKilled: a witness is killed at random moments, 50 times, while a hostile host asks it for cosignatures of two histories over several
// connections, and is started again each time. In all its lives it signs one root for each size, of one of the two, and starts each time.
func TestWitnessKilled(t *testing.T) {
	const origin = "fork.example/log"
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	public := private.Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(origin, public)
	must(t, err)
	signer, err := note.NewSigner("PRIVATE+KEY+" + origin + "+" + strings.Split(vkey, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...)))
	must(t, err)
	const most = 20_000
	branches := []*branch{{origin: origin, signer: signer}, {origin: origin, signer: signer}}
	for i, b := range branches {
		b.grow(t, 3, "common")
		b.grow(t, most, fmt.Sprint("branch ", i))
	}
	w, err := stage.NewWitness(t.Context(), binaries, filepath.Join(t.TempDir(), "witness"), "witness.example/w1", fmt.Sprintf("[[log]]\nkey = %q\n", vkey))
	must(t, err)
	defer w.Kill()
	key, err := evidence.ParseCosigner(w.Key)
	must(t, err)

	from := seed(t)
	random := rand.New(rand.NewPCG(from, 1))
	client := &http.Client{Timeout: 10 * time.Second}
	var mu sync.Mutex
	var got []cosigned
	var newest int64 // that the witness said or signed
	refused := map[int]int{}
	begun := time.Now()

	// A machine that is busy gets less cosigned in a life; then it takes more of them.
	enough := func() bool {
		sizes := map[uint64]bool{}
		for _, c := range got {
			sizes[c.Size] = true
		}
		return len(sizes) >= witnessKills && refused[http.StatusUnprocessableEntity] > 0 && refused[http.StatusConflict] > 0
	}
	kills := 0
	for ; kills < witnessKills || kills < 10*witnessKills && !enough(); kills++ {
		url, err := w.URL()
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for i := range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					mu.Lock()
					old := newest
					mu.Unlock()
					size := min(old+1+int64(i%2), most)
					body, text := branches[i%2].request(t, old, size)
					if i >= 2 && old > 0 { // and the size that is cosigned already, with this branch's root
						body, text = branches[i%2].request(t, old, old)
					}
					status, answer, err := post(ctx, client, url+"/add-checkpoint", body)
					if err != nil {
						if ctx.Err() == nil {
							time.Sleep(time.Millisecond)
						}
						continue
					}
					mu.Lock()
					switch status {
					case http.StatusOK:
						c, _, err := evidence.OpenCosigned(text+answer, policies.LogKey{Name: origin, Algorithm: "Ed25519", PublicKey: public}, evidence.Witnesses{Need: 1, Of: []evidence.Cosigner{key}})
						if err != nil {
							t.Errorf("an answer that does not verify: %v", err)
						}
						got = append(got, cosigned{c, i % 2})
						newest = max(newest, int64(c.Size))
					case http.StatusConflict:
						n, err := strconv.ParseInt(strings.TrimSuffix(answer, "\n"), 10, 64)
						if err != nil || n > most {
							t.Errorf("a conflict with %q", answer)
						}
						newest = n
						refused[status]++
					default:
						refused[status]++
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(5+random.IntN(120)) * time.Millisecond)
		w.Kill()
		cancel()
		load.Wait()
		if err := w.Start(t.Context()); err != nil {
			t.Fatalf("seed %d, kill %d: it does not start again: %v", from, kills+1, err)
		}
	}

	roots := map[uint64]policies.Hash{}
	of := map[int]int{}
	for _, c := range got {
		if root, ok := roots[c.Size]; ok && root != c.Root {
			t.Errorf("seed %d: two roots of %d entries were cosigned", from, c.Size)
		}
		roots[c.Size] = c.Root
		if c.Size > 3 {
			of[c.branch]++
		}
	}
	if len(of) != 1 {
		t.Errorf("seed %d: cosignatures of both histories: %v", from, of)
	}
	if !enough() {
		t.Errorf("seed %d: %d sizes cosigned, refused %v: the test tests nothing", from, len(roots), refused)
	}
	t.Logf("seed %d: %d kills in %s, %d cosignatures of %d sizes, refused: %v", from, kills, time.Since(begun).Round(time.Second), len(got), len(roots), refused)
	must(t, w.Stop())
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, string(answer), err
}
