package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/storefront/api"
)

// domainLife is for how long what a website said is believed: it is asked again only when the person says so.
const domainLife = 90 * 24 * time.Hour

// nameProof is what is known of a contact's name.
type nameProof struct {
	Voucher jsontext.Value `json:"voucher,omitzero"` // the newest that was seen, verified when it came
	Domain  string         `json:"domain,omitzero"`  // whose website names the contact as its own
	Until   int64          `json:"until,omitzero"`   // of the domain, Unix seconds
}

// voucher is the kept voucher, nil if there is none.
func (p *nameProof) voucher() *names.Voucher {
	if p.Voucher == nil {
		return nil
	}
	e, err := envelope.Parse(p.Voucher)
	if err != nil {
		return nil
	}
	d, err := policies.Decode[names.Voucher](e)
	if err != nil {
		return nil
	}
	return d
}

// tell adds what is known of a name to a contact.
func (p *nameProof) tell(c *Contact, now time.Time) {
	if v := p.voucher(); v != nil && v.In(now.Unix()) && v.Name == c.Name {
		c.VouchedUntil = time.Unix(v.Expires, 0).UTC()
	}
	if p.Domain != "" && now.Unix() < p.Until {
		c.Domain, c.DomainUntil = p.Domain, time.Unix(p.Until, 0).UTC()
	}
}

// voucher asks the storefront for the newest voucher for an identity's name, and verifies it with the vault's receipt. It returns nil if there is none. What a storefront holds back is
// missing: a name is unverified then, or is verified until the voucher that was seen ends.
func (d *device) voucher(ctx context.Context, id policies.IdentityID, name string) (jsontext.Value, *names.Voucher, error) {
	v, err := d.vault(ctx)
	if err != nil {
		return nil, nil, err
	}
	var got api.Vouched
	err = d.wire.call(ctx, request{method: "GET", path: path(api.PathVoucher, id.String()), out: &got})
	if errors.Is(err, policies.CodeNotFound) {
		return nil, nil, nil
	}
	untrue := func(err error) (jsontext.Value, *names.Voucher, error) {
		return nil, nil, fmt.Errorf("asking for a voucher: %w: %w", ErrUntrue, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("asking for a voucher: %w", err)
	}
	e, err := envelope.Parse(got.Document)
	if err != nil {
		return untrue(err)
	}
	doc, err := names.OpenVoucher(e, v)
	if err != nil {
		return untrue(err)
	}
	if doc.Identity != id || doc.Name != name {
		return untrue(policies.CodeVoucher)
	}
	if got.Receipt == nil {
		return untrue(errors.New("a voucher without the vault's receipt"))
	}
	if err := d.receipt(ctx, v, got.Receipt, policies.Hash(e.Hash), evidence.EntryVoucher); err != nil {
		return nil, nil, fmt.Errorf("asking for a voucher: %w", err)
	}
	return e.Raw, doc, nil
}

// renewVoucher keeps the newest voucher for a contact's name. One that is older than the kept one changes nothing.
func (o *Owner) renewVoucher(ctx context.Context, c *readerContact) error {
	doc, err := openIdentity(c.Identity, c.ID)
	if err != nil || doc.Name == "" {
		return err
	}
	raw, v, err := o.voucher(ctx, c.ID, doc.Name)
	if err != nil || v == nil {
		return err
	}
	if have := c.Proof.voucher(); have == nil || have.Serial < v.Serial {
		c.Proof.Voucher = raw
	}
	return nil
}

// syncVouchers looks for newer vouchers for the names of all contacts. What cannot be asked now is asked next time.
func (o *Owner) syncVouchers(ctx context.Context) {
	for i := range o.state.Contacts {
		if err := o.renewVoucher(ctx, &o.state.Contacts[i]); errors.Is(err, policies.CodeUnavailable) {
			return
		}
	}
}

// looksLike is the contact, if any, whose verified name another identity's unverified name looks like.
func (o *Owner) looksLike(id policies.IdentityID, name string) (Contact, bool) {
	if name == "" {
		return Contact{}, false
	}
	for i := range o.state.Contacts {
		c := &o.state.Contacts[i]
		known := o.plain(c)
		if c.ID == id && known.Verified() {
			return Contact{}, false
		}
	}
	for i := range o.state.Contacts {
		if known := o.plain(&o.state.Contacts[i]); known.ID != id && known.Verified() && names.Alike(name, known.Name) {
			return known, true
		}
	}
	return Contact{}, false
}

// refuseAlike refuses to meet, under an unverified name, somebody whose name looks like a verified one that this device knows.
func (o *Owner) refuseAlike(c *readerContact) error {
	doc, err := openIdentity(c.Identity, c.ID)
	if err != nil {
		return err
	}
	probe := *c
	if known := o.plain(&probe); known.Verified() {
		return nil
	}
	if other, alike := o.looksLike(c.ID, doc.Name); alike {
		return fmt.Errorf("%w: %q and %q (%s)", policies.CodeLookAlike, doc.Name, other.Name, other.Alias)
	}
	return nil
}

// plain is a contact with what is known of its name.
func (o *Owner) plain(c *readerContact) Contact {
	out := c.public()
	c.Proof.tell(&out, o.now())
	out.Muted, out.Blocked = slices.Contains(o.state.Mail.Muted, c.ID), slices.Contains(o.state.Mail.Blocked, c.ID)
	return out
}

// shown is plain with a warning where the name looks like somebody else's.
func (o *Owner) shown(c *readerContact) Contact {
	out := o.plain(c)
	if out.Name == "" || out.Verified() {
		return out
	}
	if other, alike := o.looksLike(c.ID, out.Name); alike {
		if out.LooksLike = other.Alias; out.LooksLike == "" {
			out.LooksLike = other.ID.String()
		}
	}
	out.Mixed = names.Check(out.Name) != nil
	return out
}

// CheckWebsite asks the web server of a domain, which the person knows from outside, whether a contact is its own: the domain's file holds a statement that the contact's newest key
// signed. The request goes from this device to that domain alone, so neither storefront nor vault hears of it, and nobody else chooses where it goes. at, if not empty, is the address
// at which the domain is reached, host:port, with a development vault only.
//
// The error is [policies.CodeDomain] if the domain does not say so; what it said before is forgotten then.
func (o *Owner) CheckWebsite(ctx context.Context, reader policies.ReaderID, domain, at string) (_ Contact, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := names.CheckDomain(domain); err != nil {
		return Contact{}, err
	}
	c, ok := o.contact(reader)
	if !ok {
		return Contact{}, ErrNoContact
	}
	v, err := o.vault(ctx)
	if err != nil {
		return Contact{}, err
	}
	if at != "" && !v.DevMode {
		return Contact{}, fmt.Errorf("%w: another address than the domain's own is for development vaults only", policies.ErrMalformed)
	}
	data, err := fetchStatement(ctx, domain, at, o.network.Roots, v.DevMode)
	if err != nil {
		return Contact{}, err
	}
	until, err := o.stated(ctx, c, domain, data)
	if errors.Is(err, policies.CodeDomain) && c.Proof.Domain == domain {
		c.Proof.Domain, c.Proof.Until = "", 0
		return o.shown(c), errors.Join(err, o.save())
	}
	if err != nil {
		return Contact{}, err
	}
	c.Proof.Domain, c.Proof.Until = domain, min(until, o.now().Add(domainLife).Unix())
	return o.shown(c), o.save()
}

// stated looks in the file of a domain for a statement of a contact's, and returns until when it is good.
func (o *Owner) stated(ctx context.Context, c *readerContact, domain string, data []byte) (until int64, err error) {
	list, err := names.ParseFile(data)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", policies.CodeDomain, err)
	}
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil {
		return 0, err
	}
	if newer, _, err := o.successions(ctx, line); err == nil {
		line = newer
	}
	key, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return 0, err
	}
	now := o.now()
	for _, e := range list {
		if e.Type != "domain-statement" {
			continue
		}
		claim, err := policies.Decode[names.Statement](e)
		if err != nil || claim.Identity != c.ID || claim.Domain != domain {
			continue
		}
		d, err := policies.Open[names.Statement](e, key)
		if err != nil || now.Unix() >= d.Expires || d.Time > now.Add(policies.ClockSkew).Unix() {
			continue
		}
		until = max(until, d.Expires)
	}
	if until == 0 {
		return 0, policies.CodeDomain
	}
	return until, nil
}

// State signs what lies on the website of a domain of this business's own: the content of the file at [names.WellKnown]. Several identities of one domain put their statements into one
// list.
func (r *Reader) State(domain string, life time.Duration) (*names.File, error) {
	now := r.now()
	e, err := policies.Sign(r.signing, &names.Statement{Header: policies.NewHeader("domain-statement", now), Identity: r.id, Domain: domain, Expires: now.Add(life).Unix()})
	if err != nil {
		return nil, err
	}
	return &names.File{Statements: []jsontext.Value{e.Raw}}, nil
}

// Name is this business as others see it: its name, and whether the operator vouches for it.
func (r *Reader) Name(ctx context.Context) (Contact, error) {
	if err := r.ready(ctx); err != nil {
		return Contact{}, err
	}
	doc, err := openIdentity(r.state.Identity, r.id)
	if err != nil {
		return Contact{}, err
	}
	out := Contact{ID: r.id, Kind: doc.Kind, Name: doc.Name}
	raw, _, err := r.voucher(ctx, r.id, doc.Name)
	(&nameProof{Voucher: raw}).tell(&out, r.now())
	out.Mixed = doc.Name != "" && names.Check(doc.Name) != nil
	return out, err
}

// Bounds of the question to a website.
const websiteTimeout = 15 * time.Second

// fetchStatement gets the file of a domain: by https, from port 443 of an address that anybody in the internet can reach, without a redirect, a proxy or a cookie. What a person's
// own network has inside is none of a domain's business, and what a domain has to say is on its own host. at and private certificates are for development.
func fetchStatement(ctx context.Context, domain, at, roots string, dev bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, websiteTimeout)
	defer cancel()
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if at == "" {
		dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error { return reachable(address) }
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if at != "" {
				address = at
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  10 * time.Second,
		MaxResponseHeaderBytes: 1 << 16,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
	if dev && roots != "" {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(roots))
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+domain+names.WellKnown, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", policies.ErrMalformed, err)
	}
	resp, err := client.Do(req)
	if errors.Is(err, policies.CodeDomain) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", names.ErrWebsite, domain, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: its website answered with HTTP status %d", policies.CodeDomain, resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, names.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", names.ErrWebsite, domain, err)
	}
	return data, nil
}

// hidden are ranges of addresses that are nobody's in the internet, besides those that package netip knows by name.
var hidden = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

// reachable refuses an address that is not one of the public internet.
func reachable(address string) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", policies.CodeDomain, err)
	}
	ip := a.Addr().Unmap()
	private := !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
	for _, p := range hidden {
		private = private || p.Contains(ip)
	}
	if private {
		return fmt.Errorf("%w: its address %s is not one of the public internet", policies.CodeDomain, ip)
	}
	return nil
}
