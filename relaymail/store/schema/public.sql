-- The shared tables as the API's migrations make them, for a database that has no API.

CREATE TABLE public."Users" (
    "Id" uuid NOT NULL,
    "OidcSubject" character varying(500) NOT NULL,
    "OidcIssuer" character varying(500) NOT NULL,
    "Email" character varying(320) NOT NULL,
    "DisplayName" character varying(500),
    "CreatedAt" timestamp with time zone NOT NULL,
    "LastLoginAt" timestamp with time zone,
    CONSTRAINT "PK_Users" PRIMARY KEY ("Id")
);
CREATE INDEX "IX_Users_Email" ON public."Users" ("Email");
CREATE UNIQUE INDEX "IX_Users_OidcIssuer_OidcSubject" ON public."Users" ("OidcIssuer", "OidcSubject");

CREATE TABLE public."UserEmailAddresses" (
    "Id" uuid NOT NULL,
    "UserId" uuid NOT NULL,
    "Address" character varying(320) NOT NULL,
    "IsVerified" boolean NOT NULL,
    "AddedAt" timestamp with time zone NOT NULL,
    "VerificationToken" character varying(6),
    "VerificationTokenExpiresAt" timestamp with time zone,
    CONSTRAINT "PK_UserEmailAddresses" PRIMARY KEY ("Id"),
    CONSTRAINT "FK_UserEmailAddresses_Users_UserId" FOREIGN KEY ("UserId")
        REFERENCES public."Users" ("Id") ON DELETE CASCADE
);
CREATE INDEX "IX_UserEmailAddresses_Address" ON public."UserEmailAddresses" ("Address");
CREATE UNIQUE INDEX "IX_UserEmailAddresses_UserId_Address"
    ON public."UserEmailAddresses" ("UserId", "Address");

CREATE TABLE public."SmtpApiKeys" (
    "Id" uuid NOT NULL,
    "UserId" uuid NOT NULL,
    "Name" character varying(100) NOT NULL,
    "KeyHash" character varying(128) NOT NULL,
    "KeyPrefix" character varying(12),
    "Scopes" character varying(500) NOT NULL DEFAULT '[]',
    "CreatedAt" timestamp with time zone NOT NULL,
    "LastUsedAt" timestamp with time zone,
    "RevokedAt" timestamp with time zone,
    CONSTRAINT "PK_SmtpApiKeys" PRIMARY KEY ("Id"),
    CONSTRAINT "FK_SmtpApiKeys_Users_UserId" FOREIGN KEY ("UserId")
        REFERENCES public."Users" ("Id") ON DELETE CASCADE
);
CREATE INDEX "IX_SmtpApiKeys_KeyPrefix_RevokedAt" ON public."SmtpApiKeys" ("KeyPrefix", "RevokedAt")
    WHERE "RevokedAt" IS NULL;
CREATE INDEX "IX_SmtpApiKeys_UserId" ON public."SmtpApiKeys" ("UserId");

CREATE TABLE public."Emails" (
    "Id" uuid NOT NULL,
    "MessageId" character varying(500) NOT NULL,
    "FromAddress" character varying(320) NOT NULL,
    "FromDisplayName" character varying(500),
    "Subject" character varying(1000) NOT NULL,
    "TextBody" text,
    "HtmlBody" text,
    "ReceivedAt" timestamp with time zone NOT NULL,
    "SizeBytes" bigint NOT NULL,
    "InReplyTo" character varying(500),
    "References" character varying(2000),
    "ThreadId" uuid,
    "SentByUserId" uuid,
    CONSTRAINT "PK_Emails" PRIMARY KEY ("Id")
);
CREATE INDEX "IX_Emails_MessageId" ON public."Emails" ("MessageId");
CREATE INDEX "IX_Emails_ReceivedAt" ON public."Emails" ("ReceivedAt");
CREATE INDEX "IX_Emails_ThreadId" ON public."Emails" ("ThreadId");

CREATE TABLE public."EmailRecipients" (
    "Id" uuid NOT NULL,
    "EmailId" uuid NOT NULL,
    "Address" character varying(320) NOT NULL,
    "DisplayName" character varying(500),
    "Type" character varying(10) NOT NULL,
    "UserId" uuid,
    "IsRead" boolean NOT NULL,
    CONSTRAINT "PK_EmailRecipients" PRIMARY KEY ("Id"),
    CONSTRAINT "FK_EmailRecipients_Emails_EmailId" FOREIGN KEY ("EmailId")
        REFERENCES public."Emails" ("Id") ON DELETE CASCADE,
    CONSTRAINT "FK_EmailRecipients_Users_UserId" FOREIGN KEY ("UserId")
        REFERENCES public."Users" ("Id") ON DELETE SET NULL
);
CREATE INDEX "IX_EmailRecipients_Address" ON public."EmailRecipients" ("Address");
CREATE INDEX "IX_EmailRecipients_EmailId" ON public."EmailRecipients" ("EmailId");
CREATE INDEX "IX_EmailRecipients_UserId_IsRead" ON public."EmailRecipients" ("UserId", "IsRead");

CREATE TABLE public."EmailAttachments" (
    "Id" uuid NOT NULL,
    "EmailId" uuid NOT NULL,
    "FileName" character varying(500) NOT NULL,
    "ContentType" character varying(200) NOT NULL,
    "SizeBytes" bigint NOT NULL,
    "Content" bytea NOT NULL,
    CONSTRAINT "PK_EmailAttachments" PRIMARY KEY ("Id"),
    CONSTRAINT "FK_EmailAttachments_Emails_EmailId" FOREIGN KEY ("EmailId")
        REFERENCES public."Emails" ("Id") ON DELETE CASCADE
);
CREATE INDEX "IX_EmailAttachments_EmailId" ON public."EmailAttachments" ("EmailId");
