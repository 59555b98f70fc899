// Package links is what people hand to each other outside the storefront, on paper, in person or by a web page of their own: the link that
// pins a vault ([Join]), the codes by which two parties meet ([Contact]), and invitations ([Invite]). Everything that must not come from the storefront comes
// from here.
//
// All are parsed strictly: a parameter that is unknown, missing or doubled is refused, so that two programs never read one link
// differently. None holds a secret.
package links

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/policies"
)

// Join is what `sallyport-hsm init` prints and clients pin: which vault, which ceremony key, and where to reach
// storefront and vault. Form: sallyport:join?vault=…&ceremony=…&storefront=…&owners=…
type Join struct {
	Vault      policies.VaultID
	Ceremony   policies.Hash // SHA-256 of the ceremony's composite public key
	Storefront string        // https URL
	Owners     string        // https URL of the vault's listener for owners, the second route
}

// String is the link.
func (l Join) String() string {
	q := url.Values{"vault": {l.Vault.String()}, "ceremony": {l.Ceremony.String()}}
	if l.Storefront != "" {
		q.Set("storefront", l.Storefront)
	}
	if l.Owners != "" {
		q.Set("owners", l.Owners)
	}
	return "sallyport:join?" + q.Encode()
}

// ParseJoin reads a join link strictly.
func ParseJoin(text string) (Join, error) {
	var l Join
	q, err := parseLink(text, "join", "vault", "ceremony", "storefront", "owners")
	if err != nil {
		return l, err
	}
	if err := l.Vault.UnmarshalText([]byte(q.Get("vault"))); err != nil {
		return l, fmt.Errorf("join link: vault: %w", err)
	}
	if err := l.Ceremony.UnmarshalText([]byte(q.Get("ceremony"))); err != nil {
		return l, fmt.Errorf("join link: ceremony: %w", err)
	}
	for name, to := range map[string]*string{"storefront": &l.Storefront, "owners": &l.Owners} {
		if *to = q.Get(name); *to == "" {
			continue
		}
		if !httpsURL().MatchString(*to) {
			return l, fmt.Errorf("%w: join link: %s is not an https URL", policies.ErrMalformed, name)
		}
	}
	return l, nil
}

// httpsURL is what a join link may name: https, a host, and possibly a port, a plain path and query. Parsers of URLs differ in what else they let
// pass and in what they make of it.
var httpsURL = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^https://([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(/[0-9A-Za-z._~/?&=-]*)?$`)
})

// Contact is what one party hands to another outside the storefront so that they can connect: who, and for an owner
// the nonce that the reader's relationship must repeat. Form: sallyport:owner?id=…&nonce=… or sallyport:reader?id=…
type Contact struct {
	Role  string // "owner" or "reader"
	ID    policies.IdentityID
	Nonce policies.Nonce // owners only
}

// String is the code.
func (c Contact) String() string {
	q := url.Values{"id": {c.ID.String()}}
	if c.Role == "owner" {
		q.Set("nonce", c.Nonce.String())
	}
	return "sallyport:" + c.Role + "?" + q.Encode()
}

// ParseContact reads a contact code strictly.
func ParseContact(text string) (Contact, error) {
	c := Contact{Role: "owner"}
	q, err := parseLink(text, "owner", "id", "nonce")
	if err != nil {
		c.Role = "reader"
		if q, err = parseLink(text, "reader", "id"); err != nil {
			return c, fmt.Errorf("%w: a contact code begins with sallyport:owner? or sallyport:reader?", policies.ErrMalformed)
		}
	}
	if err := c.ID.UnmarshalText([]byte(q.Get("id"))); err != nil {
		return c, fmt.Errorf("contact code: id: %w", err)
	}
	if c.Role == "owner" {
		if err := c.Nonce.UnmarshalText([]byte(q.Get("nonce"))); err != nil {
			return c, fmt.Errorf("contact code: nonce: %w", err)
		}
	}
	return c, nil
}

// Invite is what a business hands to one person whom it knows under a reference of its own: who invites, and a token that only the business can open and
// that serves once. It holds no secret of anybody's, but whoever uses it first is taken for the person. Form: sallyport:invite?reader=…&token=…
type Invite struct {
	Reader policies.IdentityID
	Token  []byte // 1 to 512 bytes; unpadded base64url in the link
}

// MaxReference is the length of a reference in bytes.
const MaxReference = 64

// CheckReference refuses what no business may know a person under: a reference is text of 1 to [MaxReference] bytes that neither begins nor ends with white space.
func CheckReference(reference string) error {
	h := policies.Header{Type: "invitation"}
	if err := h.CheckText("a reference", reference, 1, MaxReference); err != nil {
		return err
	}
	if strings.TrimSpace(reference) != reference {
		return fmt.Errorf("%w: a reference does not begin or end with white space", policies.ErrMalformed)
	}
	return nil
}

// String is the link.
func (l Invite) String() string {
	return "sallyport:invite?" + url.Values{"reader": {l.Reader.String()}, "token": {base64.RawURLEncoding.EncodeToString(l.Token)}}.Encode()
}

// ParseInvite reads an invitation strictly.
func ParseInvite(text string) (Invite, error) {
	var l Invite
	q, err := parseLink(text, "invite", "reader", "token")
	if err != nil {
		return l, err
	}
	if err := l.Reader.UnmarshalText([]byte(q.Get("reader"))); err != nil {
		return l, fmt.Errorf("invitation: reader: %w", err)
	}
	token := q.Get("token")
	l.Token, err = base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(l.Token) < 1 || len(l.Token) > 512 || base64.RawURLEncoding.EncodeToString(l.Token) != token {
		return l, fmt.Errorf("%w: invitation: the token is 1 to 512 bytes of unpadded base64url", policies.ErrMalformed)
	}
	return l, nil
}

func parseLink(text, kind string, members ...string) (url.Values, error) {
	bad := fmt.Errorf("%w: not a sallyport:%s link", policies.ErrMalformed, kind)
	if len(text) > 4096 {
		return nil, bad
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "sallyport" || u.Opaque != kind || strings.Contains(text, "#") { // an empty fragment is one too
		return nil, bad
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, bad
	}
	known := 0
	for _, m := range members {
		if len(q[m]) > 1 {
			return nil, bad
		}
		if len(q[m]) == 1 {
			known++
		}
	}
	if known != len(q) {
		return nil, bad
	}
	return q, nil
}
