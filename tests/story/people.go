package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-vcard"

	"github.com/sallyport/sallyport/tests/stage/search"
)

//go:embed people.vcf
var cards []byte

// person is one of the cast.
type person struct {
	profile string // folder of the profile, and the businesses' reference for this customer
	name    string
	street  string
	iban    string // empty for some
	card    []byte
	secrets []search.Marker // every value on the card that is long enough not to occur by chance
}

// people reads the cast.
func people() ([]*person, error) {
	decoder := vcard.NewDecoder(bytes.NewReader(cards))
	var cast []*person
	for {
		card, err := decoder.Decode()
		if errors.Is(err, io.EOF) {
			return cast, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the address books: %w", err)
		}
		p := &person{profile: fmt.Sprintf("person-%02d", len(cast)+1), name: card.PreferredValue(vcard.FieldFormattedName), iban: card.Value("X-IBAN")}
		var one bytes.Buffer
		if err := vcard.NewEncoder(&one).Encode(card); err != nil {
			return nil, fmt.Errorf("writing the address book of %s: %w", p.profile, err)
		}
		p.card = one.Bytes()
		// Six bytes do not occur by chance; six or seven digits, in a file of numbers, do.
		hide := func(what, value string) {
			if value = strings.TrimSpace(value); len(value) >= 8 || len(value) >= 6 && strings.Trim(value, "0123456789") != "" {
				p.secrets = append(p.secrets, search.Marker{Name: what + " of " + p.profile, Value: []byte(value)})
			}
		}
		hide("name", p.name)
		hide("IBAN", p.iban)
		hide("birthday", card.Value(vcard.FieldBirthday))
		if n := card.Name(); n != nil {
			hide("family name", n.FamilyName)
			hide("given name", n.GivenName)
		}
		for _, phone := range card.Values(vcard.FieldTelephone) {
			hide("phone", strings.TrimPrefix(phone, "tel:"))
		}
		for _, mail := range card.Values(vcard.FieldEmail) {
			hide("e-mail", mail)
		}
		if a := card.Address(); a != nil {
			p.street = a.StreetAddress
			hide("street", a.StreetAddress)
			hide("address line", a.ExtendedAddress)
			hide("town", a.Locality)
			hide("region", a.Region)
			hide("postal code", a.PostalCode)
			hide("country", a.Country)
		}
		cast = append(cast, p)
	}
}

// secrets are all markers of all people, once each.
func secrets(cast []*person) []search.Marker {
	var all []search.Marker
	for _, p := range cast {
		all = append(all, p.secrets...)
	}
	slices.SortFunc(all, func(a, b search.Marker) int { return bytes.Compare(a.Value, b.Value) })
	return slices.CompactFunc(all, func(a, b search.Marker) bool { return bytes.Equal(a.Value, b.Value) })
}
