"""Settings of the corner shop: Django's usual ones. For django_tasks, one line in INSTALLED_APPS is all there is.

Everything that the shop writes goes below ``DATA_DIR``; the environment variable ``CORNER_SHOP_DATA`` moves it.
These settings are for one's own machine: debug pages, one SQLite file, a mail transport that fails on purpose.
"""

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CORNER_SHOP_DATA", BASE_DIR / "data"))
DATA_DIR.mkdir(parents=True, exist_ok=True)

DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
#: Sessions of this example are worth nothing; ``demo.py`` gives a random key all the same.
SECRET_KEY = os.environ.get("CORNER_SHOP_SECRET_KEY", "for the example on one's own machine only")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tasks",
    "shop",
    "suppliers",
]

MIDDLEWARE = [
    "corner_shop.middleware.content_security_policy",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "shop.sqlite3",
        # Web server and worker write at the same time. A transaction that takes the write lock at its start waits
        # for its turn; one that takes it later may be refused at once, whatever the timeout.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    },
}

ROOT_URLCONF = "corner_shop.urls"
WSGI_APPLICATION = "corner_shop.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
MEDIA_URL = "media/"
MEDIA_ROOT = DATA_DIR / "media"

USE_TZ = True
TIME_ZONE = "UTC"

DEFAULT_FROM_EMAIL = "Corner shop <counter@corner-shop.example>"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "shop.mail.FlakyFileBackend"}}
else:
    EMAIL_BACKEND = "shop.mail.FlakyFileBackend"
#: Where the mail transport puts the mails that it accepts.
SHOP_MAIL_DIR = DATA_DIR / "mails"
#: The share of deliveries that it drops, 0 to 1.
SHOP_MAIL_FAILURE_RATE = 0.5

#: Where the shop is reached: the stand-in for its partner is there, too.
SHOP_URL = os.environ.get("CORNER_SHOP_URL", "http://127.0.0.1:8000/")
#: The share of webhooks that the stand-in answers with 500 or 429, 0 to 1.
SHOP_PARTNER_FAILURE_RATE = 0.3
