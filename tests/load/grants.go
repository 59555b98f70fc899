package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/client"
	"github.com/sallyport/sallyport/vault/pre"
)

// Many grants in custody sealed: how many objects the token holds then, how soon the vault is back after it was killed, and how fast it reads. The
// owners and their reader speak to the vault as a storefront would, so that the making of a hundred thousand grants does not measure a storefront.

const (
	grantingOwners = 32 // at once; one owner's documents come one after the other
	readersAtOnce  = 64
	warmKeys       = 512
	grantPurpose   = "load"
)

// Restart is what a run with many grants found.
type Restart struct {
	Grants          int                `json:"grants"`
	GrantsPerSecond float64            `json:"grants_per_s"`
	TokenObjects    int                `json:"token_objects"`
	LogMB           float64            `json:"log_mb"`
	KeysMB          float64            `json:"keys_mb"`
	Killed          Start              `json:"killed_after_grants"` // vault killed when the last grant was made
	KilledReading   Start              `json:"killed_after_reads"`  // and again after many reads
	Stopped         Start              `json:"stopped"`
	Storefront      Start              `json:"storefront_killed"`
	ColdReads       float64            `json:"cold_reads_per_s"`
	WarmReads       float64            `json:"warm_reads_per_s"`
	Opened          int                `json:"answers_opened"`
	ResidentMB      map[string]float64 `json:"resident_mb"`
}

// Start is a start of a daemon, in seconds.
type Start struct {
	Ready     float64 `json:"ready_s"`     // from the call that starts the process until it listens
	CPU       float64 `json:"processor_s"` // user and system time of all its processes meanwhile
	FirstRead float64 `json:"first_read_s,omitzero"`
	Resident  float64 `json:"resident_mb"`
}

// town is a vault with many grants in one custody.
type town struct {
	stage   *stage.Stage
	custody policies.Custody
	vault   *client.Client
	doc     *policies.VaultDocument
	token   string
	key     policies.ImportKey
	public  *rsa.PublicKey
	reader  *townReader
	owners  []*townOwner
	grants  []townGrant
}

type townReader struct {
	key  *envelope.PrivateKey
	id   policies.ReaderID
	root *pre.Root

	signer  *envelope.SessionKey
	k       *pre.SessionKey
	session policies.Hash
}

// townOwner has one field.
type townOwner struct {
	key      *envelope.PrivateKey
	id       policies.OwnerID
	field    *pre.FieldKey
	link     policies.Link
	manifest policies.Hash
	leaf     policies.Leaf
	text     []byte
	point    [65]byte
}

// townGrant is one of an owner's, with what its reader needs.
type townGrant struct {
	owner *townOwner
	id    policies.DocumentID
	ct    []byte
}

const townField policies.Field = "own/address"

// measureGrants makes n grants, kills the vault, starts it again, and reads.
func measureGrants(ctx context.Context, n int, bin stage.Binaries, dir string, say func(string, ...any)) (Restart, error) {
	s, err := stage.Open(ctx, stage.Options{Dir: dir, Bin: bin})
	if err != nil {
		return Restart{}, err
	}
	defer s.Close()
	t := &town{stage: s, custody: policies.CustodySealed}
	if err := t.settle(ctx); err != nil {
		return Restart{}, err
	}
	f := Restart{Grants: n}
	begin := time.Now()
	if err := t.grantAll(ctx, n, say); err != nil {
		return f, err
	}
	f.GrantsPerSecond = float64(n) / time.Since(begin).Seconds()
	say("%d grants in %.0f s", n, time.Since(begin).Seconds())
	objects, err := filepath.Glob(filepath.Join(s.TokenFolder(), "*", "*.object"))
	if err != nil {
		return f, err
	}
	f.TokenObjects = len(objects)
	f.LogMB, f.KeysMB = megabytes(s.VaultLog()), megabytes(filepath.Join(s.VaultData(), "keys"))

	s.Vault.Kill()
	if f.Killed, err = t.startVault(ctx); err != nil {
		return f, err
	}
	say("the vault, killed after the grants: %+v", f.Killed)

	length := 10 * time.Second
	if n < 10_000 {
		length = time.Second
	}
	var opened int
	if f.ColdReads, opened, err = t.readFor(ctx, n, length); err != nil {
		return f, err
	}
	f.Opened += opened
	if _, _, err = t.readFor(ctx, min(n, warmKeys), length/4); err != nil {
		return f, err
	}
	if f.WarmReads, opened, err = t.readFor(ctx, min(n, warmKeys), length); err != nil {
		return f, err
	}
	f.Opened += opened
	f.ResidentMB = resident(s)
	s.Vault.Kill()
	if f.KilledReading, err = t.startVault(ctx); err != nil {
		return f, err
	}
	say("the vault, killed after the reads: %+v", f.KilledReading)
	if err := s.Vault.Stop(); err != nil {
		return f, err
	}
	if f.Stopped, err = t.startVault(ctx); err != nil {
		return f, err
	}
	s.Storefront.Kill()
	f.Storefront, err = start(ctx, s, s.Storefront, "storefront")
	f.Opened += 3
	return f, err
}

// start starts a daemon and says what that took.
func start(ctx context.Context, s *stage.Stage, d *stage.Daemon, names ...string) (f Start, err error) {
	begin := time.Now()
	if err := d.Start(ctx); err != nil {
		return f, err
	}
	f.Ready = time.Since(begin).Seconds()
	times, memory := cpuTimes(s), resident(s)
	for _, name := range names {
		f.CPU, f.Resident = f.CPU+times[name].Seconds(), f.Resident+memory[name]
	}
	return f, nil
}

// startVault starts the vault and reads once.
func (t *town) startVault(ctx context.Context) (Start, error) {
	begin := time.Now()
	f, err := start(ctx, t.stage, t.stage.Vault, "vault", "token workers")
	if err == nil {
		err = t.connect()
	}
	if err == nil {
		err = t.openSession(ctx)
	}
	if err == nil {
		err = t.read(ctx, 0, true)
	}
	f.FirstRead = time.Since(begin).Seconds()
	return f, err
}

func megabytes(dir string) (sum float64) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			sum += float64(info.Size()) / (1 << 20)
		}
	}
	return sum
}

func (t *town) connect() error {
	if t.vault != nil {
		t.vault.Close()
	}
	pem, err := os.ReadFile(t.stage.CA())
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(t.stage.ClientCertificate())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t.vault, err = client.New(client.Config{Address: t.stage.VaultURL(), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}})
	return err
}

// settle enrols the owners and their reader, and has each owner publish a field.
func (t *town) settle(ctx context.Context) error {
	if err := t.connect(); err != nil {
		return err
	}
	e, err := t.vault.Vault(ctx)
	if err != nil {
		return err
	}
	if t.doc, err = policies.Decode[policies.VaultDocument](e); err != nil {
		return err
	}
	t.token = t.doc.Tokens[0].Serial
	var ok bool
	if t.key, ok = t.doc.ImportKey(t.token, t.custody); !ok || t.key.OAEPHash != "SHA-1" || t.key.Path != "oaep-direct" {
		return fmt.Errorf("the vault offers no custody %s as SoftHSM does it: %+v", t.custody, t.key)
	}
	public, err := x509.ParsePKIXPublicKey(t.key.PublicKey)
	if err != nil {
		return err
	}
	t.public = public.(*rsa.PublicKey)
	t.reader = new(townReader)
	var id policies.IdentityID
	if t.reader.key, t.reader.root, id, err = t.enrol(ctx); err != nil {
		return err
	}
	t.reader.id = policies.ReaderID(id)
	for range grantingOwners {
		o := new(townOwner)
		var root *pre.Root
		if o.key, root, id, err = t.enrol(ctx); err != nil {
			return err
		}
		o.id = policies.OwnerID(id)
		if o.field, err = root.FieldKey(policies.Slot{Owner: o.id, Field: townField, Epoch: 1, Author: policies.AuthorID(o.id)}); err != nil {
			return err
		}
		if o.leaf, o.text, err = o.field.Seal(1, []byte("1 Main Street"), nil); err != nil {
			return err
		}
		if o.point, err = pre.Decompress(&o.leaf.Capsule); err != nil {
			return err
		}
		tree, err := policies.NewTree([]policies.Leaf{o.leaf})
		if err != nil {
			return err
		}
		m, err := policies.Sign(o.key, &policies.Manifest{
			Header: policies.NewHeader("manifest", time.Now()), Audience: t.doc.Vault, Owner: o.id, Author: policies.AuthorID(o.id),
			Link: policies.Link{Seq: 1, Prev: policies.Hash(o.id)}, Version: 1, TreeSize: 1, Root: tree.Root(),
		})
		if err != nil {
			return err
		}
		if err := t.submit(ctx, m); err != nil {
			return err
		}
		o.manifest, o.link = m.Hash, policies.Link{Seq: 2, Prev: m.Hash}
		t.owners = append(t.owners, o)
	}
	return t.openSession(ctx)
}

func (t *town) submit(ctx context.Context, e *envelope.Envelope, keys ...api.SealedKey) error {
	receipt, err := t.vault.Submit(ctx, api.Submission{Envelope: e.Raw, Keys: keys})
	if err != nil {
		return err
	}
	_, _, _, err = receipt.Verify(t.doc, e.Hash)
	return err
}

func (t *town) enrol(ctx context.Context) (*envelope.PrivateKey, *pre.Root, policies.IdentityID, error) {
	root, err := pre.NewRoot()
	if err != nil {
		return nil, nil, policies.IdentityID{}, err
	}
	seed := root.IdentitySeed()
	key := envelope.NewPrivateKey(&seed)
	kem := pre.NewBlobKey([32]byte{1}).Public()
	e, err := policies.Sign(key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindPerson, SigningKey: key.Public().Bytes(), KEMKey: kem, LoginKey: kem, RecoveryHash: policies.Hash{1},
	})
	if err != nil {
		return nil, nil, policies.IdentityID{}, err
	}
	return key, root, policies.IdentityID(e.Hash), t.submit(ctx, e)
}

func (t *town) openSession(ctx context.Context) error {
	r := t.reader
	ct, secret, err := pre.EncapsulateSession(t.doc.SessionKEM, nil)
	if err != nil {
		return err
	}
	defer secret.Zero()
	r.signer = envelope.NewSessionKey()
	now := time.Now()
	e, err := policies.Sign(r.key, &policies.Session{
		Header: policies.NewHeader("session", now), Audience: t.doc.Vault, Reader: r.id, Key: r.signer.Public(),
		NotBefore: now.Unix(), Expires: now.Add(policies.SessionLifetime).Unix(), Ciphertext: ct,
	})
	if err != nil {
		return err
	}
	r.session, r.k = e.Hash, secret.Key(t.doc.Vault, r.id, e.Hash)
	return t.submit(ctx, e)
}

// relationship is the reader's key for an owner.
func (t *town) relationship(o *townOwner) *pre.ReaderKey {
	return t.reader.root.ReaderKey(o.id, policies.Nonce{1})
}

// grantAll makes n grants of one field each, by all owners at once.
func (t *town) grantAll(ctx context.Context, n int, say func(string, ...any)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var taken, done atomic.Int64
	var mu sync.Mutex // guards t.grants
	var wg sync.WaitGroup
	for _, o := range t.owners {
		wg.Go(func() {
			for taken.Add(1) <= int64(n) && ctx.Err() == nil {
				g, err := t.grant(ctx, o)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				t.grants = append(t.grants, g)
				mu.Unlock()
				done.Add(1)
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	begin := time.Now()
	for {
		select {
		case <-finished:
			return context.Cause(ctx)
		case <-time.After(20 * time.Second):
			say("%d of %d grants, %.0f a second", done.Load(), n, float64(done.Load())/time.Since(begin).Seconds())
		}
	}
}

func (t *town) grant(ctx context.Context, o *townOwner) (townGrant, error) {
	p, err := t.prepare(o)
	if err != nil {
		return townGrant{}, err
	}
	return p.made, t.hand(ctx, p)
}

// prepared is a grant as its owner's device makes it, before the vault has seen it.
type prepared struct {
	made     townGrant
	envelope *envelope.Envelope
	key      api.SealedKey
}

// prepare makes the next grant of an owner, who counts on the vault to take it.
func (t *town) prepare(o *townOwner) (*prepared, error) {
	now := time.Now()
	ct, secret, err := pre.NewGrantSecret(t.relationship(o).Public(), nil)
	if err != nil {
		return nil, err
	}
	defer secret.Zero()
	g := &policies.Grant{
		Header: policies.NewHeader("grant", now), Audience: t.doc.Vault, Owner: o.id, Link: o.link, Reader: t.reader.id, Relationship: policies.Hash{1},
		Custody: t.custody, Rights: []policies.Right{policies.RightRead}, Purpose: grantPurpose,
		NotBefore: now.Unix() - 60, Expires: now.Unix() + 86400, Ciphertext: ct,
	}
	rk, err := secret.ReEncryptionKey(g.ID, t.reader.id, o.field)
	if err != nil {
		return nil, err
	}
	defer rk.Zero()
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, t.public, rk.PKCS8(), nil)
	if err != nil {
		return nil, err
	}
	g.Fields = []policies.GrantedField{{Field: townField, Epoch: 1, Author: policies.AuthorID(o.id), Keys: []policies.WrappedKey{{
		Token: t.token, ImportKey: policies.HashKey(t.key.PublicKey), Path: t.key.Path, Digest: sha256.Sum256(wrapped),
	}}}}
	e, err := policies.Sign(o.key, g)
	if err != nil {
		return nil, err
	}
	info, err := pre.ImportInfo(t.doc.Vault, e.Hash, townField, 1, policies.AuthorID(o.id))
	if err != nil {
		return nil, err
	}
	sealed, err := pre.SealBlob(t.doc.ImportHPKE, info, wrapped)
	if err != nil {
		return nil, err
	}
	o.link = policies.Link{Seq: o.link.Seq + 1, Prev: e.Hash}
	return &prepared{townGrant{o, g.ID, ct}, e, api.SealedKey{Field: townField, Author: policies.AuthorID(o.id), Token: t.token, Sealed: sealed}}, nil
}

// hand gives a grant to the vault and verifies the receipt.
func (t *town) hand(ctx context.Context, p *prepared) error {
	if err := t.submit(ctx, p.envelope, p.key); err != nil {
		return fmt.Errorf("granting: %w", err)
	}
	return nil
}

// read reads under one grant; open also opens the value.
func (t *town) read(ctx context.Context, i int, open bool) error {
	g, r, now := &t.grants[i], t.reader, time.Now()
	request, err := policies.Sign(r.signer, &policies.ReadRequest{
		Header: policies.NewHeader("read", now), Audience: t.doc.Vault, Session: r.session, Nonce: policies.NewNonce(),
		Expires: now.Unix() + 60, Purpose: grantPurpose, Items: []policies.ReadItem{{Owner: g.owner.id, Field: townField}},
	})
	if err != nil {
		return err
	}
	reply, err := t.vault.Reencrypt(ctx, api.Call{Request: request.Raw, Items: []api.CallItem{{
		Grant: g.id, Head: g.owner.manifest, Leaf: g.owner.leaf.Bytes(), Point: g.owner.point,
	}}})
	if err != nil {
		return err
	}
	if reply.Code != "" || len(reply.Outcomes) != 1 || reply.Outcomes[0] != policies.CodeReleased {
		return fmt.Errorf("reading under grant %d: %s %s", i, string(reply.Code), fmt.Sprint(reply.Outcomes))
	}
	if !open {
		return nil
	}
	plain, err := r.k.OpenAnswer(request.Hash, reply.Sealed)
	if err != nil {
		return err
	}
	answer, err := policies.ParseAnswer(plain)
	if err != nil {
		return err
	}
	secret, err := t.relationship(g.owner).OpenGrant(g.ct)
	if err != nil {
		return err
	}
	defer secret.Zero()
	value, err := secret.Open(g.id, r.id, &g.owner.leaf, answer.Items[0].X, g.owner.text)
	if err == nil && !bytes.Equal(value, []byte("1 Main Street")) {
		err = errors.New("another value than was sealed")
	}
	return err
}

// readFor reads under the first n grants in turn, for a time, and opens one answer in a hundred. It returns reads a second.
func (t *town) readFor(ctx context.Context, n int, length time.Duration) (float64, int, error) {
	var turn, opened atomic.Int64
	var failed atomic.Pointer[error]
	begin := time.Now()
	var wg sync.WaitGroup
	for range readersAtOnce {
		wg.Go(func() {
			for time.Since(begin) < length && failed.Load() == nil {
				i := turn.Add(1)
				if err := t.read(ctx, int(i)%n, i%100 == 0); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				if i%100 == 0 {
					opened.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	return float64(turn.Load()) / time.Since(begin).Seconds(), int(opened.Load()), nil
}

func reportGrants(f Restart) {
	fmt.Printf("\n%-40s %10d\n", "grants, custody sealed", f.Grants)
	fmt.Printf("%-40s %10d\n", "objects in the token", f.TokenObjects)
	fmt.Printf("%-40s %10.0f\n", "grants a second", f.GrantsPerSecond)
	for _, line := range []struct {
		what string
		f    Start
	}{
		{"vault, killed after the grants", f.Killed}, {"vault, killed after the reads", f.KilledReading},
		{"vault, stopped in good order", f.Stopped}, {"storefront, killed", f.Storefront},
	} {
		fmt.Printf("%-40s %10.2f s until ready, %.2f s of processor time, %.2f s until the first read, %.0f MB\n",
			line.what, line.f.Ready, line.f.CPU, line.f.FirstRead, line.f.Resident)
	}
	fmt.Printf("%-40s %10.0f a second, with %d keys in turn\n", "cold reads", f.ColdReads, f.Grants)
	fmt.Printf("%-40s %10.0f a second, with %d keys in turn\n", "warm reads", f.WarmReads, min(f.Grants, warmKeys))
	fmt.Printf("%-40s %10d\n", "answers opened and verified", f.Opened)
	fmt.Printf("%-40s %10.0f MB, sealed keys %.0f MB\n", "key-use log", f.LogMB, f.KeysMB)
	names := make([]string, 0, len(f.ResidentMB))
	for name := range f.ResidentMB {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Printf("%-40s %10.0f MB\n", "memory of "+name, f.ResidentMB[name])
	}
}

// runGrants is the mode of --grants.
func runGrants(ctx context.Context, n int, file string) error {
	dir, err := os.MkdirTemp("", "sallyport-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println("building and starting")
	module, err := stage.ModuleRoot()
	if err != nil {
		return err
	}
	bin, err := stage.Build(ctx, module, filepath.Join(dir, "bin"))
	if err != nil {
		return err
	}
	f, err := measureGrants(ctx, n, bin, filepath.Join(dir, "stage"), func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err != nil {
		return err
	}
	reportGrants(f)
	return errors.Join(write(file, f), f.judge())
}

// What is asked of a vault with up to 100,000 grants in custody sealed: a token of fewer than 20 objects, and to serve again within five seconds of a start, on a machine that
// does nothing else.
const (
	askedGrants  = 100_000
	askedObjects = 20
	askedSeconds = 5
)

func (f *Restart) judge() error {
	slowest := max(f.Killed.Ready, f.KilledReading.Ready, f.Stopped.Ready, f.Storefront.Ready)
	switch {
	case f.TokenObjects >= askedObjects:
		return fmt.Errorf("the token has %d objects: fewer than %d are asked", f.TokenObjects, askedObjects)
	case f.Grants <= askedGrants && slowest > askedSeconds:
		return fmt.Errorf("a start took %.1f s: at most %d are asked, on a machine that does nothing else", slowest, askedSeconds)
	}
	return nil
}
