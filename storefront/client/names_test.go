package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// vouch makes the operator sign for a reader's name, and hands that in.
func (w *world) vouch(r *Reader, serial uint64, change func(*names.Voucher)) error {
	w.t.Helper()
	doc, err := openIdentity(r.state.Identity, r.id)
	w.must(err)
	now := time.Now()
	d := &names.Voucher{
		Header: policies.NewHeader("voucher", now), Audience: w.doc.Vault, Identity: r.id, Name: doc.Name, Serial: serial, NotBefore: now.Unix(), Expires: now.Unix() + 86400,
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(envelope.NewPrivateKey(&[envelope.SeedSize]byte{3}), d) // newWorld's ceremony
	w.must(err)
	return r.wire.call(context.Background(), request{method: "POST", path: path(api.PathVoucher, r.id.String()), raw: e.Raw})
}

func withdrawn(d *names.Voucher) { d.NotBefore, d.Expires, d.Withdrawn = 0, 0, true }

func (w *world) contactOf(o *Owner, alias string) Contact {
	w.t.Helper()
	for _, c := range o.Contacts() {
		if c.Alias == alias {
			return c
		}
	}
	w.t.Fatalf("no contact %s", alias)
	return Contact{}
}

// TestVouched: a name is unverified until the operator vouches for it, and again when that ends. A storefront that makes a voucher up is caught; one that brings an old one changes nothing.
func TestVouched(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	acme, _ := w.reader("Acme Versand")
	w.connect(o, acme, "acme")
	if c := w.contactOf(o, "acme"); c.Verified() || c.Name != "Acme Versand" {
		t.Errorf("nobody vouches: %+v", c)
	}
	w.must(w.vouch(acme, 1, nil))
	w.must(o.Sync(ctx))
	if c := w.contactOf(o, "acme"); !c.Verified() || c.VouchedUntil.IsZero() || c.Domain != "" {
		t.Errorf("vouched for: %+v", c)
	}
	if me, err := acme.Name(ctx); err != nil || !me.Verified() {
		t.Errorf("as the business sees it: %+v, %v", me, err)
	}
	var old []byte
	w.rewrite("/voucher", func(body []byte) []byte { old = body; return body })
	w.must(o.Sync(ctx))
	w.hostile(nil)
	w.must(w.vouch(acme, 2, withdrawn))
	w.must(o.Sync(ctx))
	if c := w.contactOf(o, "acme"); c.Verified() {
		t.Errorf("withdrawn: %+v", c)
	}
	w.rewrite("/voucher", func([]byte) []byte { return old })
	w.must(o.Sync(ctx))
	if c := w.contactOf(o, "acme"); c.Verified() {
		t.Errorf("the old voucher, shown again: %+v", c)
	}
	w.hostile(nil)

	// A storefront that signs a voucher itself, or shows one without the vault's receipt.
	globex, _ := w.reader("Globex")
	w.must(w.vouch(globex, 1, nil))
	for what, change := range map[string]func(*api.Vouched){
		"its own key": func(v *api.Vouched) {
			e, err := envelope.Parse(v.Document)
			w.must(err)
			d, err := policies.Decode[names.Voucher](e)
			w.must(err)
			forged, err := policies.Sign(envelope.NewPrivateKey(&[envelope.SeedSize]byte{77}), d)
			w.must(err)
			v.Document = forged.Raw
		},
		"no receipt":                  func(v *api.Vouched) { v.Receipt = nil },
		"a receipt of something else": func(v *api.Vouched) { v.Receipt.Document[0]++ },
	} {
		w.rewrite("/voucher", func(body []byte) []byte {
			var v api.Vouched
			w.must(envelope.Decode(body, &v))
			change(&v)
			b, err := json.Marshal(v)
			w.must(err)
			return b
		})
		if raw, _, err := o.voucher(ctx, globex.id, "Globex"); !errors.Is(err, ErrUntrue) || raw != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.hostile(nil)
	if _, _, err := o.voucher(ctx, globex.id, "Initech"); !errors.Is(err, policies.CodeVoucher) {
		t.Errorf("for another name: %v", err)
	}
}

// TestLookAlikes: who looks like somebody that this device knows as verified is not met, and not heard; among unverified names there is a warning.
func TestLookAlikes(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	acme, _ := w.reader("Acme Versand")
	mole, _ := w.reader("Аcme Versand") // its first letter is Cyrillic; enrolled before the other was vouched for
	again, _ := w.reader("ACME-Versand")
	w.connect(o, acme, "acme")
	w.connect(o, mole, "mole")
	if c := w.contactOf(o, "mole"); c.LooksLike != "" || !c.Mixed {
		t.Errorf("before: %+v", c)
	}
	w.must(w.vouch(acme, 1, nil))
	if err := w.vouch(again, 1, nil); !errors.Is(err, policies.CodeLookAlike) {
		t.Errorf("a voucher for the other: %v", err)
	}
	if _, err := InitReader(ctx, new(memory), w.network, policies.KindBusiness, "Acme Versanď", Options{}); err != nil {
		t.Errorf("a name with another accent: %v", err)
	}
	if _, err := InitReader(ctx, new(memory), w.network, policies.KindBusiness, "acme versand", Options{}); !errors.Is(err, policies.CodeLookAlike) {
		t.Errorf("enrolling under the name: %v", err)
	}
	w.must(o.Sync(ctx))
	if c := w.contactOf(o, "mole"); c.LooksLike != "acme" || c.Verified() {
		t.Errorf("after: %+v", c)
	}
	if c := w.contactOf(o, "acme"); c.LooksLike != "" || c.Mixed {
		t.Errorf("the verified one: %+v", c)
	}
	// A request of the look-alike, which is a contact already, is thrown away.
	w.asks(mole, o, delivery())
	mail, err := o.Receive(ctx)
	w.must(err)
	if len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], policies.CodeLookAlike) || len(o.Inbox(true)) != 0 {
		t.Errorf("its request: %+v", mail)
	}
	w.asks(acme, o, delivery())
	if mail, err = o.Receive(ctx); err != nil || len(o.Inbox(false)) != 1 || !o.Inbox(false)[0].From.Verified() {
		t.Errorf("the verified one's: %+v, %v", mail, err)
	}
	// Another one is not met in the first place, by code or by invitation.
	code, err := o.Code()
	w.must(err)
	_, err = again.Connect(ctx, code, "customer")
	w.must(err)
	if _, err := o.Connect(ctx, again.Code(), "again"); !errors.Is(err, policies.CodeLookAlike) {
		t.Errorf("connecting: %v", err)
	}
	link, err := again.Invite("CUST-1", time.Now().Add(time.Hour))
	w.must(err)
	if err := o.Accept(ctx, link, "again"); !errors.Is(err, policies.CodeLookAlike) {
		t.Errorf("accepting: %v", err)
	}
}

// TestWebsite: a domain says whose it is. What does not come from the domain itself, or is not signed by the contact, says nothing.
func TestWebsite(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	acme, _ := w.reader("Acme Versand")
	mole, _ := w.reader("Mole")
	w.connect(o, acme, "acme")
	w.connect(o, mole, "mole")
	file := func(r *Reader, domain string) []byte {
		f, err := r.State(domain, time.Hour)
		w.must(err)
		b, err := json.Marshal(f)
		w.must(err)
		return b
	}
	var answer http.HandlerFunc
	var asked []string
	site := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Host+r.URL.Path)
		answer(rw, r)
	}))
	site.TLS = &tls.Config{}
	site.StartTLS()
	defer site.Close()
	at := strings.TrimPrefix(site.URL, "https://") // its certificate is for example.com too
	say := func(b []byte) http.HandlerFunc { return func(rw http.ResponseWriter, _ *http.Request) { rw.Write(b) } }

	answer = say(file(acme, "example.com"))
	c, err := o.CheckWebsite(ctx, acme.ID(), "example.com", at)
	if err != nil || c.Domain != "example.com" || !c.Verified() || !c.VouchedUntil.IsZero() {
		t.Fatalf("%+v, %v", c, err)
	}
	if len(asked) != 1 || asked[0] != "example.com"+names.WellKnown {
		t.Errorf("asked: %q", asked)
	}
	again, err := OpenOwner(m, Options{})
	w.must(err)
	if c := w.contactOf(again, "acme"); c.Domain != "example.com" {
		t.Errorf("after a restart: %+v", c)
	}
	late, err := OpenOwner(m, Options{Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	w.must(err)
	if c := w.contactOf(late, "acme"); c.Verified() {
		t.Errorf("when the statement is over: %+v", c)
	}

	for what, one := range map[string]struct {
		reader *Reader
		domain string
		answer http.HandlerFunc
		want   error
	}{
		"of another identity":   {mole, "example.com", say(file(acme, "example.com")), policies.CodeDomain},
		"of another domain":     {mole, "example.com", say(file(mole, "example.org")), policies.CodeDomain},
		"no file of statements": {mole, "example.com", say([]byte("<html>")), policies.CodeDomain},
		"not found":             {mole, "example.com", http.NotFound, policies.CodeDomain},
		"a redirect": {mole, "example.com", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://example.com/elsewhere", http.StatusFound)
		}, policies.CodeDomain},
		"a file without an end": {mole, "example.com", func(rw http.ResponseWriter, _ *http.Request) {
			for range 2 * names.MaxFile / 1024 {
				rw.Write(make([]byte, 1024))
			}
		}, policies.CodeDomain},
		"a host whose certificate is another's": {mole, "example.org", say(file(mole, "example.org")), names.ErrWebsite},
		"no domain":                             {mole, "127.0.0.1", say(file(mole, "example.com")), policies.ErrMalformed},
		"signed by it, for another identity": {mole, "example.com", func(rw http.ResponseWriter, _ *http.Request) {
			e, err := policies.Sign(mole.signing, &names.Statement{Header: policies.NewHeader("domain-statement", time.Now()), Identity: acme.id, Domain: "example.com", Expires: time.Now().Unix() + 60})
			w.must(err)
			b, _ := json.Marshal(names.File{Statements: []jsontext.Value{e.Raw}})
			rw.Write(b)
		}, policies.CodeDomain},
		"signed by another": {mole, "example.com", func(rw http.ResponseWriter, _ *http.Request) {
			e, err := policies.Sign(acme.signing, &names.Statement{Header: policies.NewHeader("domain-statement", time.Now()), Identity: mole.id, Domain: "example.com", Expires: time.Now().Unix() + 60})
			w.must(err)
			b, _ := json.Marshal(names.File{Statements: []jsontext.Value{e.Raw}})
			rw.Write(b)
		}, policies.CodeDomain},
	} {
		answer = one.answer
		if c, err := o.CheckWebsite(ctx, one.reader.ID(), one.domain, at); !errors.Is(err, one.want) || c.Verified() {
			t.Errorf("%s: %v, %+v", what, err, c)
		}
	}
	// What a domain does not say any more is forgotten.
	answer = say(file(mole, "example.com"))
	if _, err := o.CheckWebsite(ctx, acme.ID(), "example.com", at); !errors.Is(err, policies.CodeDomain) || w.contactOf(o, "acme").Verified() {
		t.Errorf("taken back: %v", err)
	}
	// Without a development vault the domain is reached at its own address alone, and that is not one of somebody's own network.
	v, err := o.vault(ctx)
	w.must(err)
	v.DevMode = false
	if _, err := o.CheckWebsite(ctx, acme.ID(), "example.com", at); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("an address of somebody's choice: %v", err)
	}
	if _, err := fetchStatement(ctx, "localhost.localdomain", "", "", false); err == nil {
		t.Error("a host of this machine was asked")
	}
}

func TestReachable(t *testing.T) {
	for address, ok := range map[string]bool{
		"93.184.216.34:443": true, "[2606:2800:220:1::1]:443": true,
		"127.0.0.1:443": false, "10.1.2.3:443": false, "192.168.1.1:443": false, "172.16.0.1:443": false, "169.254.169.254:443": false, "100.64.0.1:443": false, "0.0.0.0:443": false,
		"224.0.0.1:443": false, "255.255.255.255:443": false, "198.18.0.1:443": false, "192.0.2.1:443": false, "[::1]:443": false, "[::]:443": false, "[fe80::1]:443": false, "[fc00::1]:443": false,
		"[::ffff:127.0.0.1]:443": false, "[::ffff:10.0.0.1]:443": false, "[64:ff9b::a00:1]:443": false, "[2002:a00:1::]:443": false, "[ff02::1]:443": false, "nonsense": false,
	} {
		if err := reachable(address); (err == nil) != ok || err != nil && !errors.Is(err, policies.CodeDomain) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestGivenUpBeforeItWasMet: a device hears that a reader gave something up before it has fetched the chain with the grant. Its rotation does not grant it anew either.
func TestGivenUpBeforeItWasMet(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, globex := w.household(1)
	w.must(o.Set(ctx, set("own/late", "late")))
	second := reopen(m.clone(), w)
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"own/late"}, GrantOptions{}))
	w.wantRead(acme, o, "own/late", "late")
	_, err := acme.GiveUp(ctx, o.ID(), "own/late")
	w.must(err)
	w.must(second.GrantWrite(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.must(second.Rotate(ctx, "own/late"))
	if v := w.read(acme, o, "own/late"); v.Err == nil {
		t.Error("a rotation granted anew what was given up")
	}
	w.wantRead(acme, o, "own/f0", "value 0")
	if len(second.state.GivenUpEarly) > 0 {
		t.Errorf("still waiting: %+v", second.state.GivenUpEarly)
	}
}

// TestGiveUp: a reader gives up what it no longer needs. The owner hears of it, and a rotation does not grant it anew.
func TestGiveUp(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(3)
	fields := []policies.Field{"own/f0", "own/f1", "own/f2"}
	if _, err := acme.GiveUp(ctx, o.ID(), "own/f9"); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("what was never granted: %v", err)
	}
	if _, err := globex.GiveUp(ctx, o.ID(), "own/f1"); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("what was granted to another: %v", err)
	}
	initech, _ := w.reader("Initech")
	w.connect(o, initech, "initech")
	if _, err := initech.GiveUp(ctx, o.ID()); !errors.Is(err, policies.CodeNoGrant) || strings.Contains(err.Error(), "[") { // of no field
		t.Errorf("nothing at all: %v", err)
	}
	given, err := acme.GiveUp(ctx, o.ID(), fields[0], fields[1])
	if err != nil || len(given) != 2 {
		t.Fatalf("%v, %v", given, err)
	}
	if v := w.read(acme, o, fields[0]); !errors.Is(v.Err, policies.CodeRevoked) {
		t.Errorf("read what was given up: %v", v.Err)
	}
	w.wantRead(acme, o, fields[2], "value 2")
	w.wantRead(globex, o, fields[0], "value 0")
	w.must(o.Sync(ctx))
	if list := o.GivenUp(); len(list) != 1 || list[0].Alias != "acme" || len(list[0].Fields) != 2 {
		t.Errorf("the owner hears: %+v", list)
	}
	w.must(o.Sync(ctx))
	if list := o.GivenUp(); len(list) != 1 {
		t.Errorf("twice: %+v", list)
	}
	w.must(o.Rotate(ctx, fields...))
	if v := w.read(acme, o, fields[1]); v.Err == nil {
		t.Error("a rotation granted anew what was given up")
	}
	w.wantRead(acme, o, fields[2], "value 2")
	events, err := o.History(ctx, 100)
	w.must(err)
	told := 0
	for _, e := range events {
		if strings.Contains(e.Text, "acme gave up the permissions for 2 fields by itself") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the history tells it %d times", told)
	}
	if check, err := o.Verify(ctx); err != nil || !check.Agrees() {
		t.Errorf("the log and the device: %+v, %v", check, err)
	}
	// The storefront is away: the wish is kept, and carried out with the next call.
	w.silent("renunciations")
	if _, err := acme.GiveUp(ctx, o.ID(), fields[2]); !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("a silent storefront: %v", err)
	}
	w.hostile(nil)
	if v := w.read(acme, o, fields[2]); !errors.Is(v.Err, policies.CodeRevoked) {
		t.Errorf("after it is back: %v", v.Err)
	}
	if _, err := acme.GiveUp(ctx, o.ID()); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("nothing is left: %v", err)
	}
}

// TestGivenUpAndNotHeardOf: a device that has not heard of it yet asks before it grants anything anew: when it rotates, when it lets somebody write.
func TestGivenUpAndNotHeardOf(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, om, acme, bank, _ := w.clinic()
	second := reopen(om.clone(), w)
	phone, email := policies.Field("phone.mobile"), policies.Field("email.home")
	_, err := acme.GiveUp(ctx, o.ID(), phone, email)
	w.must(err)
	w.must(o.Rotate(ctx, email))
	w.wantRefusal(acme, o, email, policies.CodeRevoked)
	w.must(second.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set(phone, "two")))
	w.wantRefusal(acme, o, phone, policies.CodeRevoked)
}

// TestGivingUpSaidToBeOver: a storefront says that what a reader gives up is over already: that the owner's account is closed, with receipts of other closings too, that the grant was revoked or
// never was. While the vault can be asked that is told past it; while it cannot, a closing is believed on its receipt only, the wish is kept, the person told so, and nothing else waits for it.
func TestGivingUpSaidToBeOver(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(12)
	other, _ := w.owner()
	w.must(other.CloseAccount(ctx))
	others, err := w.vault.Submit(ctx, vaultapi.Submission{Envelope: other.state.Closing})
	w.must(err)
	says := func(err error) {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/renunciations") && r.Method == "POST" {
				problem.Write(rw, err)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	over := func(f policies.Field) bool {
		t.Helper()
		return errors.Is(w.read(acme, o, f).Err, policies.CodeRevoked)
	}
	last := policies.Field("own/f11")
	for i, lie := range []error{
		policies.CodeClosed, &problem.Problem{Code: policies.CodeClosed, Receipt: others}, policies.CodeRevoked, policies.CodeNoGrant, policies.CodeKeyReplaced,
	} {
		f := policies.Field("own/f" + strconv.Itoa(2*i))
		says(lie)
		if _, err := acme.GiveUp(ctx, o.ID(), f); err != nil || !over(f) { // the vault has it, and the owner hears of it later
			t.Errorf("%v, with the vault in reach: %v, over %v", lie, err, over(f))
		}
		if !errors.Is(lie, policies.CodeClosed) {
			continue
		}
		w.reachable(false)
		f = policies.Field("own/f" + strconv.Itoa(2*i+1))
		if _, err := acme.GiveUp(ctx, o.ID(), f); !errors.Is(err, ErrSaidClosed) || !strings.Contains(err.Error(), "kept and tried again") || strings.Contains(err.Error(), "nothing is given up") {
			t.Errorf("%v, with nobody to ask: %v", lie, err)
		}
		w.wantRead(acme, o, last, "value 11") // and nothing else waits for it
		w.reachable(true)
	}
	if n := len(acme.state.GivingUp); n != 7 {
		t.Errorf("%d are kept, want 7", n)
	}
	w.hostile(nil)
	acme.settled = false // as when it is opened again
	for _, i := range []string{"0", "1", "2", "3", "4", "6", "8"} {
		if f := policies.Field("own/f" + i); !over(f) {
			t.Errorf("%s is not given up", f)
		}
	}
	w.must(o.Sync(ctx))
	if list := o.GivenUp(); len(acme.state.GivingUp) != 0 || len(list) != 7 {
		t.Errorf("%d are kept, and the owner hears of %+v", len(acme.state.GivingUp), list)
	}
	// What is over indeed: revoked, and with the account.
	w.must(o.Revoke(ctx, acme.ID(), []policies.Field{"own/f10"}, RevokeOptions{KeepEpoch: true}))
	giveUp := func(r *Reader, f policies.Field, g policies.DocumentID) {
		t.Helper()
		e, err := policies.Sign(r.signing, &succession.Renunciation{
			Header: policies.NewHeader("renunciation", r.now()), Audience: w.doc.Vault, Reader: r.ID(), Owner: o.ID(),
			Items: []policies.RevokedItem{{Grant: g, Field: f, Author: policies.AuthorID(o.ID())}},
		})
		w.must(err)
		r.state.GivingUp, r.settled = append(r.state.GivingUp, e.Raw), false
		w.must(r.ready(ctx))
		if len(r.state.GivingUp) != 0 || r.unproven != nil {
			t.Errorf("%s: %d are kept, %v", f, len(r.state.GivingUp), r.unproven)
		}
	}
	grantOf := func(f policies.Field, r *Reader) (id policies.DocumentID) {
		for _, g := range o.state.Grants {
			if _, ok := g.Doc.Field(f, policies.AuthorID(o.ID())); ok && g.Doc.Reader == r.ID() {
				id = g.Doc.ID
			}
		}
		return id
	}
	giveUp(acme, "own/f10", grantOf("own/f10", acme))
	acmes, globexs := grantOf(last, acme), grantOf("own/f0", globex)
	w.must(o.CloseAccount(ctx))
	giveUp(acme, last, acmes)
	w.reachable(false)
	giveUp(globex, "own/f0", globexs) // by the storefront alone, which passes on the vault's receipt
}
