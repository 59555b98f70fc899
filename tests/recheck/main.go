// Command recheck makes a key-use log of any length and rechecks it, to measure how fast that is and how much memory it takes. It is not part of
// tests/run. Usage:
//
//	go run ./tests/recheck --releases 1000000 --dir DIR    writes a published log, for `sallyport audit verify` and `recheck`
//	go run ./tests/recheck --releases 5000000              rechecks in memory, and prints what is in use at each tenth
//	go run ./tests/recheck --rules FILE                    the same, or with --dir, under guardrails that refuse none of it
//
// Every bundle of the log is a function of its number, so nothing of it is kept: one session, then the releases of its requests, a second after the bundle
// before. With --items 1 each release has a signed request of its own, which is the most that there is to do; a session is over after ten minutes of the log's
// time, and must be forgotten by then.
package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/vault/audit"
)

func main() {
	releases := flag.Int("releases", 1_000_000, "how many releases, rounded up to whole bundles of 255")
	items := flag.Int("items", 1, "items of a request, 1 to 255")
	dir := flag.String("dir", "", "write the log into this folder and recheck nothing")
	rules := flag.String("rules", "", "file with guardrails, in force from the beginning on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *items < 1 || *items > perBundle || *releases < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(ctx, *releases, *items, *dir, *rules); err != nil {
		fmt.Fprintln(os.Stderr, "recheck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, releases, items int, dir, rules string) error {
	begun := time.Now()
	l, err := newLog(items, rules)
	if err != nil {
		return err
	}
	if err := l.grow(ctx, (releases+perBundle-1)/perBundle, dir); err != nil {
		return err
	}
	fmt.Printf("made %d entries in %.1f s\n", l.size, time.Since(begun).Seconds())
	if dir != "" {
		return nil
	}
	log, err := audit.Open(ctx, l, l.document)
	if err != nil {
		return err
	}
	begun = time.Now()
	tenth := uint64(1)
	log.Progress = func(done, of uint64) {
		for ; done >= of*tenth/10 && tenth <= 10; tenth++ {
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("%10d entries  %6.1f s  heap %5.1f MB, of which the log's own hashes %4.1f MB\n", done, time.Since(begun).Seconds(), float64(m.HeapAlloc)/1e6, float64(len(l.above[0])*32)/1e6)
		}
	}
	report, err := log.Recheck(ctx, audit.Range{})
	if err != nil {
		return err
	}
	fmt.Printf("%d releases: %d justified, %d unjustified, %d not checkable; %.1f s\n", report.Releases, report.Justified, report.Unjustified.Count, report.Unchecked.Count, time.Since(begun).Seconds())
	if report.Justified != report.Releases {
		return fmt.Errorf("an honest log was not found to be one: %+v", report.Unjustified.Reasons)
	}
	return nil
}

const (
	perBundle = audit.TileWidth - 1 // releases
	owners    = 20
	readers   = 8
	granted   = 4 // fields of a grant
	purpose   = "delivery"
)

// log is the generated log. It implements audit.Source.
type log struct {
	document   *policies.VaultDocument
	envelope   []byte
	key        ed25519.PrivateKey // of the log
	host       *evidence.CosignerKey
	begun      time.Time
	items      int
	owners     []party
	readers    []party
	heads      []policies.Hash
	grants     [owners][readers]policies.DocumentID
	rules      policies.Hash // of the guardrails, if there are any
	leaves     [][]byte      // of the beginning: identities, heads, grants
	bodies     [][]byte
	size       uint64
	checkpoint string
	above      [][]tlog.Hash // of each level of tiles from 1 on: the hash of each tile below
	last       int64         // number of the last bundle

	mu    sync.Mutex
	ready map[int64]*made // bundles that were asked for and not yet in all parts
}

type party struct {
	key    *envelope.PrivateKey
	id     policies.IdentityID
	pseudo policies.Pseudonym
}

// made is a bundle as it is published.
type made struct{ entries, bodies, tile []byte }

func newLog(items int, rules string) (*log, error) {
	l := &log{items: items, key: ed25519.NewKeyFromSeed(make([]byte, 32)), begun: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ready: map[int64]*made{}}
	ceremony := envelope.NewPrivateKey(&[64]byte{1})
	var err error
	if l.host, err = evidence.NewCosignerKey("vault.example/host", &[32]byte{1}); err != nil {
		return nil, err
	}
	l.document = &policies.VaultDocument{
		Header: l.header("vault", 0), Vault: policies.VaultID{1}, Version: 1, CeremonyKey: ceremony.Public().Bytes(),
		Tokens:     []policies.TokenEntry{{Serial: "1", Label: "token", ImportKeys: []policies.ImportKey{{Custody: policies.CustodyResident}}}},
		LogKey:     policies.LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: l.key.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: l.host.Cosigner().Name, Algorithm: "ML-DSA-44", PublicKey: l.host.Cosigner().PublicKey},
		ImportHPKE: make([]byte, policies.KEMPublicKeySize), SessionKEM: append(make([]byte, policies.KEMPublicKeySize-1), 1),
	}
	e, err := policies.Sign(ceremony, l.document)
	if err != nil {
		return nil, err
	}
	l.envelope = e.Raw
	l.begin(evidence.Entry{Kind: evidence.EntryGenesis}, &evidence.Details{Document: e.Hash}, e.Raw)
	for i := range owners + readers {
		p, err := l.enrol(byte(i + 1))
		if err != nil {
			return nil, err
		}
		if i < owners {
			l.owners = append(l.owners, p)
		} else {
			l.readers = append(l.readers, p)
		}
	}
	for o := range owners {
		if err := l.publish(o); err != nil {
			return nil, err
		}
	}
	if rules != "" {
		if err := l.guard(ceremony, rules); err != nil {
			return nil, err
		}
	}
	for len(l.leaves)%audit.TileWidth != 0 {
		l.begin(evidence.Entry{Kind: evidence.EntryStart}, &evidence.Details{}, nil)
	}
	return l, nil
}

func (l *log) header(kind string, n uint64) policies.Header {
	return policies.Header{Type: kind, Suite: policies.Suite, ID: sha256.Sum256(policies.Encode(kind, policies.U64(n))), Time: l.begun.Unix()}
}

// begin appends an entry to the beginning of the log.
func (l *log) begin(e evidence.Entry, d *evidence.Details, document []byte) uint64 {
	index := uint64(len(l.leaves))
	leaf, body := l.entry(index, l.begun, e, d, document)
	l.leaves, l.bodies = append(l.leaves, leaf), append(l.bodies, body)
	return index
}

func (l *log) entry(index uint64, at time.Time, e evidence.Entry, d *evidence.Details, document []byte) (leaf, body []byte) {
	text, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	b := evidence.Body{Opening: evidence.Opening{Details: text}, Document: document}
	binary.BigEndian.PutUint64(b.Salt[:], index)
	e.Commitment = b.Commitment()
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 192), uint64(at.UnixMilli())), e.Bytes()...), b.Bytes()
}

func (l *log) enrol(n byte) (party, error) {
	p := party{key: envelope.NewPrivateKey(&[64]byte{2, n}), pseudo: policies.Pseudonym{n}}
	e, err := policies.Sign(p.key, &policies.Identity{
		Header: l.header("identity", uint64(n)), Kind: policies.KindPerson, SigningKey: p.key.Public().Bytes(),
		KEMKey: make([]byte, policies.KEMPublicKeySize), LoginKey: make([]byte, policies.KEMPublicKeySize), RecoveryHash: policies.Hash{1},
	})
	if err != nil {
		return p, err
	}
	p.id = policies.IdentityID(e.Hash)
	l.begin(evidence.Entry{Kind: evidence.EntryIdentity, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{Document: e.Hash, Identity: p.id, Pseudo: p.pseudo}, e.Raw)
	return p, nil
}

// publish gives an owner a head, and grants to all readers.
func (l *log) publish(o int) error {
	p := &l.owners[o]
	owner, author := policies.OwnerID(p.id), policies.AuthorID(p.id)
	e, err := policies.Sign(p.key, &policies.Manifest{
		Header: l.header("manifest", uint64(o)), Audience: l.document.Vault, Owner: owner, Author: author, Link: policies.Link{Seq: 1, Prev: policies.Hash(p.id)}, Version: 1, TreeSize: 1, Root: policies.Hash{9},
	})
	if err != nil {
		return err
	}
	l.heads = append(l.heads, e.Hash)
	l.begin(evidence.Entry{Kind: evidence.EntryManifest, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{Owner: owner, Author: author, Document: e.Hash, Version: 1, Seq: 1}, e.Raw)
	link := policies.Link{Seq: 2, Prev: e.Hash}
	for r := range l.readers {
		g := &policies.Grant{
			Header: l.header("grant", uint64(o*readers+r)), Audience: l.document.Vault, Owner: owner, Link: link, Reader: policies.ReaderID(l.readers[r].id), Relationship: policies.Hash{1},
			Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead}, Purpose: purpose, NotBefore: l.begun.Unix(), Expires: l.begun.AddDate(100, 0, 0).Unix(),
			Ciphertext: make([]byte, policies.KEMCiphertextSize), Limits: policies.Limits{ReadsPerDay: 1 << 40},
		}
		for f := range granted {
			g.Fields = append(g.Fields, policies.GrantedField{Field: field(f), Epoch: 1, Author: author, Keys: []policies.WrappedKey{{Token: "1", ImportKey: policies.Hash{1}, Path: "oaep-direct", Digest: policies.Hash{2}}}})
		}
		e, err := policies.Sign(p.key, g)
		if err != nil {
			return err
		}
		entry := evidence.Entry{Kind: evidence.EntryImport, Owner: p.pseudo, Reader: l.readers[r].pseudo}
		index := l.begin(entry, &evidence.Details{Owner: owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Custody: g.Custody}, e.Raw)
		entry.Kind, entry.Outcome = evidence.EntryGrant, policies.CodeAccepted
		l.begin(entry, &evidence.Details{Owner: owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Custody: g.Custody, Seq: g.Seq, Index: index}, nil)
		l.grants[o][r] = g.ID
		link = policies.Link{Seq: link.Seq + 1, Prev: e.Hash}
	}
	return nil
}

// guard puts a file of guardrails in force.
func (l *log) guard(ceremony *envelope.PrivateKey, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	e, err := policies.Sign(ceremony, &guardrails.Document{Header: l.header("guardrails", 0), Audience: l.document.Vault, Serial: 1, Rules: string(text)})
	if err != nil {
		return err
	}
	l.rules = e.Hash
	l.begin(evidence.Entry{Kind: evidence.EntryGuardrails, Outcome: policies.CodeAccepted}, &evidence.Details{Document: e.Hash}, e.Raw)
	return nil
}

func field(n int) policies.Field { return policies.Field(fmt.Sprintf("field.%d", n)) }

// bundle makes bundle n. Without sign, the documents have no signatures: the leaves are the same.
func (l *log) bundle(n int64, sign bool) (leaves, bodies [][]byte, err error) {
	if first := n * audit.TileWidth; first < int64(len(l.leaves)) {
		return l.leaves[first : first+audit.TileWidth], l.bodies[first : first+audit.TileWidth], nil
	}
	now := l.begun.Add(time.Duration(n) * time.Second)
	index := uint64(n) * audit.TileWidth
	add := func(e evidence.Entry, d *evidence.Details, document []byte) {
		leaf, body := l.entry(index, now.Add(time.Duration(len(leaves))*time.Millisecond), e, d, document)
		leaves, bodies = append(leaves, leaf), append(bodies, body)
		index++
	}
	r := int(n) % readers
	reader := &l.readers[r]
	key := ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(n)))
	session := &policies.Session{
		Header: l.header("session", uint64(n)), Audience: l.document.Vault, Reader: policies.ReaderID(reader.id), Key: envelope.SessionPublicKey(key.Public().(ed25519.PublicKey)),
		NotBefore: now.Unix(), Expires: now.Unix() + 600, Ciphertext: make([]byte, policies.KEMCiphertextSize),
	}
	raw, hash, err := sealed(session, nil)
	if err == nil && sign {
		var e *envelope.Envelope
		if e, err = policies.Sign(reader.key, session); err == nil {
			raw = e.Raw
		}
	}
	if err != nil {
		return nil, nil, err
	}
	add(evidence.Entry{Kind: evidence.EntrySession, Reader: reader.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{Reader: session.Reader, Document: hash, Session: hash, Expires: session.Expires}, raw)
	for len(leaves) < audit.TileWidth {
		request := &policies.ReadRequest{Header: l.header("read", index), Audience: l.document.Vault, Session: hash, Expires: now.Unix() + 60, Purpose: purpose}
		request.Time = now.Unix()
		binary.BigEndian.PutUint64(request.Nonce[:], index)
		for i := range min(l.items, audit.TileWidth-len(leaves)) {
			k := int(index) + i
			request.Items = append(request.Items, policies.ReadItem{Owner: policies.OwnerID(l.owners[k%owners].id), Field: field(k % granted)})
		}
		signer := key
		if !sign {
			signer = nil
		}
		raw, asked, err := sealed(request, signer)
		if err != nil {
			return nil, nil, err
		}
		for i := range request.Items {
			o, document := int(index)%owners, raw
			if i > 0 {
				document = nil
			}
			add(evidence.Entry{Kind: evidence.EntryUse, Owner: l.owners[o].pseudo, Reader: reader.pseudo, Outcome: policies.CodeReleased}, &evidence.Details{
				Owner: request.Items[i].Owner, Reader: session.Reader, Grant: l.grants[o][r], Field: request.Items[i].Field, Author: policies.AuthorID(l.owners[o].id), Epoch: 1, Version: 1,
				Head: l.heads[o], Leaf: policies.Hash{byte(o + 1), byte(int(index) % granted)}, Session: hash, Request: asked, Nonce: request.Nonce, Custody: policies.CustodyResident,
				Token: "1", Grade: "A", Rules: l.rules, Decided: now.UnixMilli() + int64(len(leaves)),
			}, document)
		}
	}
	return leaves, bodies, nil
}

// sealed makes an envelope by hand: package envelope draws session keys at random. Without a key there is no signature worth the name.
func sealed(d envelope.Document, key ed25519.PrivateKey) (raw []byte, hash policies.Hash, err error) {
	payload, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		return nil, hash, err
	}
	kind := "application/vnd.sallyport." + d.DocumentType() + ".v1+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload)
	signature := make([]byte, ed25519.SignatureSize)
	if key != nil {
		signature = ed25519.Sign(key, pae)
	}
	return fmt.Appendf(nil, `{"payloadType":%q,"payload":%q,"signatures":[{"sig":%q}]}`, kind, base64.StdEncoding.EncodeToString(payload), base64.StdEncoding.EncodeToString(signature)), sha256.Sum256(pae), nil
}

// publishable is a bundle as it is published.
func (l *log) publishable(n int64, sign bool) (*made, error) {
	leaves, bodies, err := l.bundle(n, sign)
	if err != nil {
		return nil, err
	}
	m := &made{}
	for i := range leaves {
		m.entries = append(binary.BigEndian.AppendUint16(m.entries, uint16(len(leaves[i]))), leaves[i]...)
		m.bodies = append(binary.BigEndian.AppendUint32(m.bodies, uint32(len(bodies[i]))), bodies[i]...)
		h := tlog.RecordHash(leaves[i])
		m.tile = append(m.tile, h[:]...)
	}
	return m, nil
}

// grow makes so many bundles beyond the beginning, and the tree, and writes all of it if there is a folder.
func (l *log) grow(ctx context.Context, bundles int, dir string) error {
	first := int64(len(l.leaves) / audit.TileWidth)
	l.last = first + int64(bundles) - 1
	l.size = uint64(l.last+1) * audit.TileWidth
	roots := make([]tlog.Hash, l.last+1)
	var wait sync.WaitGroup
	var failed error
	var once sync.Once
	next := make(chan int64)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for n := range next {
				m, err := l.publishable(n, dir != "")
				if err == nil && dir != "" {
					err = write(dir, map[string][]byte{audit.EntriesPath(n, audit.TileWidth): m.entries, audit.BodiesPath(n, audit.TileWidth): m.bodies, audit.TilePath(0, n, audit.TileWidth): m.tile})
				}
				if err != nil {
					once.Do(func() { failed = err })
					continue
				}
				roots[n] = rootOf(m.tile)
			}
		})
	}
	for n := int64(0); n <= l.last && ctx.Err() == nil; n++ {
		next <- n
	}
	close(next)
	if wait.Wait(); failed != nil || ctx.Err() != nil {
		return cmp.Or(failed, ctx.Err())
	}
	// The levels above, and the root.
	for hashes := roots; len(hashes) > 0; {
		l.above = append(l.above, hashes)
		var up []tlog.Hash
		for len(hashes) >= audit.TileWidth {
			up, hashes = append(up, fold(hashes[:audit.TileWidth])), hashes[audit.TileWidth:]
		}
		hashes = up
	}
	var right []tlog.Hash
	for _, hashes := range l.above {
		if rest := hashes[len(hashes)/audit.TileWidth*audit.TileWidth:]; len(rest) > 0 {
			right = []tlog.Hash{fold(append(append([]tlog.Hash{}, rest...), right...))}
		}
	}
	var err error
	if l.checkpoint, err = l.signed(right[0]); err != nil || dir == "" {
		return err
	}
	files := map[string][]byte{"vault": l.envelope}
	for i, hashes := range l.above {
		for n := int64(0); n*audit.TileWidth < int64(len(hashes)); n++ {
			part := hashes[n*audit.TileWidth : min(int64(len(hashes)), (n+1)*audit.TileWidth)]
			files[audit.TilePath(i+1, n, len(part))] = flat(part)
		}
	}
	if err := write(dir, files); err != nil {
		return err
	}
	return write(dir, map[string][]byte{"checkpoint": []byte(l.checkpoint)})
}

func write(dir string, files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func rootOf(tile []byte) tlog.Hash {
	hashes := make([]tlog.Hash, len(tile)/tlog.HashSize)
	for i := range hashes {
		hashes[i] = tlog.Hash(tile[i*tlog.HashSize:])
	}
	return fold(hashes)
}

// fold is the root over hashes (RFC 6962 section 2.1).
func fold(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	split := 1
	for 2*split < len(hashes) {
		split *= 2
	}
	return tlog.NodeHash(fold(hashes[:split]), fold(hashes[split:]))
}

func flat(hashes []tlog.Hash) (out []byte) {
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out
}

func (l *log) signed(root tlog.Hash) (string, error) {
	name := l.document.LogKey.Name
	key, err := note.NewEd25519VerifierKey(name, l.document.LogKey.PublicKey)
	if err != nil {
		return "", err
	}
	signer, err := note.NewSigner("PRIVATE+KEY+" + name + "+" + strings.Split(key, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, l.key.Seed()...)))
	if err != nil {
		return "", err
	}
	text, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", name, l.size, base64.StdEncoding.EncodeToString(root[:]))}, signer)
	if err != nil {
		return "", err
	}
	line, err := l.host.Cosign(name, evidence.Checkpoint{Size: l.size, Root: policies.Hash(root)}, l.begun)
	return string(text) + line, err
}

// Checkpoint implements audit.Source.
func (l *log) Checkpoint(context.Context) ([]byte, error) { return []byte(l.checkpoint), nil }

// Entries implements audit.Source. The bundle is kept until its hashes, which are asked for last, were given.
func (l *log) Entries(_ context.Context, n int64, _ int) ([]byte, error) {
	m, err := l.publishable(n, true)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready[n] = m
	return m.entries, nil
}

// Bodies implements audit.Source.
func (l *log) Bodies(_ context.Context, n int64, _ int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready[n].bodies, nil
}

// Tile implements audit.Source.
func (l *log) Tile(_ context.Context, level int, n int64, width int) ([]byte, error) {
	if level > 0 {
		return flat(l.above[level-1][n*audit.TileWidth : n*audit.TileWidth+int64(width)]), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.ready[n]
	delete(l.ready, n)
	return m.tile, nil
}
